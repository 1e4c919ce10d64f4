"""Many small PNG files in one call, by native code and zlib or libdeflate, where the machine has a compiler.

On images of a few hundred pixels, a decoder spends its time getting ready, and Python's lock changes hands five times.
"""

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from recursight.models.kernels.build import SWITCH, build

ZLIB = ("libz.so.1", "libz.1.dylib")
LIBDEFLATE = ("libdeflate.so.0", "libdeflate.0.dylib")  # twice as fast, where it is installed

_OF_ZLIB = ("uncompress", "crc32")
_OF_LIBDEFLATE = ("libdeflate_alloc_decompressor", "libdeflate_zlib_decompress", "libdeflate_free_decompressor")


class _Functions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in (*_OF_ZLIB, *_OF_LIBDEFLATE)]


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
        native, functions = libraries
        native.decode_files(
            ctypes.byref(functions),
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
def _libraries() -> tuple[ctypes.CDLL, _Functions] | None:
    zlib, libdeflate = _loaded(ZLIB), _loaded(LIBDEFLATE)
    if os.environ.get(SWITCH) == "0" or zlib is None:
        return None
    try:
        native = ctypes.CDLL(str(build([Path(__file__).with_name("png.cpp")])))
    except (OSError, RuntimeError):  # the layers' kernels, which need a compiler too, tell of it
        return None
    return native, _Functions(*_pointers(zlib, _OF_ZLIB), *_pointers(libdeflate, _OF_LIBDEFLATE))


def _loaded(names: Sequence[str]) -> ctypes.CDLL | None:
    """The library, by its name on this system."""
    for name in names:
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _pointers(library: ctypes.CDLL | None, names: Sequence[str]) -> list[ctypes.c_void_p]:
    """Of its functions; null where there is no library."""
    return [ctypes.cast(getattr(library, name), ctypes.c_void_p) if library else ctypes.c_void_p() for name in names]
