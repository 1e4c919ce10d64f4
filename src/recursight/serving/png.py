"""Many small PNG files in one call, by native code and zlib, where the machine has a compiler and that library.

On images of a few hundred pixels, a decoder spends its time getting ready, and Python's lock changes hands five times.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from recursight.models.kernels.build import SWITCH, build

ZLIB = ("libz.so.1", "libz.1.dylib")


class _Zlib(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("uncompress", "crc32")]


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("height", "width", "channels")]


def decode_files(folder: Path, paths: Sequence[str], pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the plain PNG files (8 bits, grey or RGB) that have just the right shape.

    All others are to be decoded in another way: other kinds, large, broken and missing files; all, without native code.

    Args:
        folder: that the files are in.
        paths: of N files, below the folder.
        pixels: is filled where that works; uint8 (N, H, W, C) in C order.

    Returns:
        Where it worked, bool (N), and which files these were, int64 (N, 2): bytes, last change in ns since 1970.
    """
    done, versions = np.zeros(len(paths), bool), np.zeros((len(paths), 2), np.int64)
    libraries = _libraries()
    if libraries is not None:
        native, zlib = libraries
        native.decode_files(
            ctypes.byref(zlib),
            os.fsencode(folder),
            os.fsencode("\0".join(paths)) + b"\0",
            *map(_address, (pixels, done, versions)),
            ctypes.c_long(len(paths)),
            ctypes.byref(_Shape(*pixels.shape[1:])),
        )
    return done, versions


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@cache
def _libraries() -> tuple[ctypes.CDLL, _Zlib] | None:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        native = ctypes.CDLL(str(build([Path(__file__).with_name("png.cpp")])))
        zlib = next(library for name in ZLIB if (library := _loaded(name)))
    except (OSError, RuntimeError, StopIteration):  # the layers' kernels, which need a compiler too, tell of it
        return None
    return native, _Zlib(*(ctypes.cast(getattr(zlib, name), ctypes.c_void_p) for name in ("uncompress", "crc32")))


def _loaded(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
