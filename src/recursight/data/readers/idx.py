"""IDX, the format of MNIST: one file of images, one of labels, per split.

A header of big-endian 32-bit numbers (0x0000 08 and the number of axes, then the length of each axis) is followed by
bytes. Images have the axes N H W, or N H W C with one or three channels. `classes.txt` in the same folder may name the
classes, one per line; without it the number of a class is its name.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from recursight.data.images import MAX_PIXELS
from recursight.data.records import SPLIT_NAMES, SPLITS, TEST, Fault, Record, Source
from recursight.errors import InputError

LOOKS_FOR = "IDX files (such as train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz)"
CLASSES = "classes.txt"

_IMAGES = re.compile(r"(?:(?P<split>[A-Za-z0-9]+)[-_])?images[-.]idx(?P<axes>[34])-ubyte(?P<gzip>\.gz)?")
_SPLITS = SPLIT_NAMES | {"t10k": TEST}
_MAGIC = {1: 0x801, 3: 0x803, 4: 0x804}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_MAX_IMAGES = 100_000_000  # their labels are kept in memory


class Pair(NamedTuple):
    """The two files of one split, with the contents of their headers."""

    split: str | None
    images: Path
    labels: Path
    shape: tuple[int, ...]
    """N, H, W or N, H, W, C."""


class Damage(Exception):
    """A file is not a valid IDX file; the message says why."""


def detect(folder: Path) -> bool:
    return any(_IMAGES.fullmatch(path.name) for path in folder.iterdir())


def read(folder: Path) -> Source:
    """Checks every header first, so that all errors of all files are reported at once.

    Raises:
        InputError: if a file is missing or invalid.
    """
    pairs, faults = _pairs(folder)
    labels: list[np.ndarray] = []
    for pair in pairs:
        try:
            labels.append(_read_labels(pair))
        except Damage as damage:
            faults.append(str(damage))
    names = _class_names(folder, labels, faults)
    if faults:
        raise InputError("\n".join(faults))

    def records() -> Iterator[Record | Fault]:
        for pair, numbers in zip(pairs, labels, strict=True):
            yield from _records(pair, [names[number] for number in numbers.tolist()])

    known = {path.name for pair in pairs for path in (pair.images, pair.labels)} | {CLASSES}
    ignored = tuple(sorted(path.name for path in folder.iterdir() if path.name not in known))
    return Source("idx", tuple(names.values()), sum(pair.shape[0] for pair in pairs), records, ignored)


def files(folder: Path) -> list[Path]:
    """The files of the source; other files in the folder are left out."""
    paths = [path for pair in _pairs(folder)[0] for path in (pair.images, pair.labels)]
    return paths + [path for path in [folder / CLASSES] if path.is_file()]


def write(path: Path, values: np.ndarray) -> None:
    """Writes uint8 values as IDX, gzipped if the name ends in .gz; equal values give identical bytes."""
    header = struct.pack(f">{1 + values.ndim}I", _MAGIC[values.ndim], *values.shape)
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            raw.write(header + values.tobytes())
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
            packed.write(header + values.tobytes())


def _pairs(folder: Path) -> tuple[list[Pair], list[str]]:
    """Matches images with labels by name; also returns the errors in names and headers of images."""
    found: dict[str | None, Pair] = {}
    faults: list[str] = []
    for path in sorted(folder.iterdir()):
        match = _IMAGES.fullmatch(path.name)
        if match is None:
            continue
        name = match["split"]
        if name is not None and name.lower() not in _SPLITS:
            faults.append(f"{path.name}: {name!r} is not a split; known: {', '.join(_SPLITS)}.")
            continue
        split = None if name is None else _SPLITS[name.lower()]
        if split in found:
            faults.append(f"{found[split].images.name} and {path.name} belong to the same split; keep one of them.")
            continue
        try:
            found[split] = Pair(split, path, _labels_of(path), _image_header(path, int(match["axes"])))
        except Damage as damage:
            faults.append(str(damage))
    if None in found and len(found) > 1:
        faults.append(f"{found[None].images.name} names no split, but other files do.")
    order = (None, *SPLITS)
    return sorted(found.values(), key=lambda pair: order.index(pair.split)), faults


def _labels_of(images: Path) -> Path:
    stem = re.sub(r"images([-.])idx[34]", r"labels\1idx1", images.name.removesuffix(".gz"))
    for name in (stem, f"{stem}.gz"):
        if (images.parent / name).is_file():
            return images.parent / name
    raise Damage(f"{images.name} has no labels: {stem} or {stem}.gz is missing.")


def _image_header(path: Path, axes: int) -> tuple[int, ...]:
    with open_stream(path) as stream:
        shape = _header(stream, path, axes)
    if shape[0] < 1:
        raise Damage(f"{path.name} contains no images.")
    if axes == 4 and shape[3] not in (1, 3):
        raise Damage(f"{path.name} declares {shape[3]} channels; images have 1 or 3.")
    if shape[0] > _MAX_IMAGES:
        raise Damage(f"{path.name} declares {shape[0]:,} images; at most {_MAX_IMAGES:,} are possible.")
    if min(shape[1:]) < 1 or shape[1] * shape[2] > MAX_PIXELS:
        raise Damage(f"{path.name} declares {shape[1]}×{shape[2]} pixels per image; 1 to {MAX_PIXELS:,} are possible.")
    return shape


def _read_labels(pair: Pair) -> np.ndarray:
    path, count = pair.labels, pair.shape[0]
    with open_stream(path) as stream:
        (labels,) = _header(stream, path, 1)
        if labels != count:
            raise Damage(f"{pair.images.name} contains {count:,} images, but {path.name} {labels:,} labels.")
        values = _exactly(stream, path, count)
        _ends(stream, path)
    return np.frombuffer(values, np.uint8)


def _class_names(folder: Path, labels: list[np.ndarray], faults: list[str]) -> dict[int, str]:
    present = sorted({int(number) for numbers in labels for number in np.unique(numbers)})
    path = folder / CLASSES
    if not path.is_file():
        return {number: str(number) for number in present}
    names = [name.strip() for name in path.read_text(encoding="utf-8-sig").splitlines() if name.strip()]
    if len(set(names)) != len(names):
        faults.append(f"{CLASSES} names a class twice.")
    if present and present[-1] >= len(names):
        faults.append(f"the labels go up to {present[-1]}, but {CLASSES} names only {len(names)} classes.")
    return dict(enumerate(names))


def _records(pair: Pair, labels: list[str]) -> Iterator[Record | Fault]:
    count, *image_shape = pair.shape
    image_bytes = int(np.prod(image_shape))
    step = max(1, _CHUNK_BYTES // image_bytes)
    prefix = pair.images.name.split(".gz")[0]
    try:
        with open_stream(pair.images) as stream:
            _header(stream, pair.images, len(pair.shape))
            for start in range(0, count, step):
                rows = min(step, count - start)
                chunk = _exactly(stream, pair.images, rows * image_bytes)
                images = np.frombuffer(chunk, np.uint8).reshape(rows, *image_shape)
                for row in range(rows):
                    yield Record(f"{prefix}:{start + row}", labels[start + row], pair.split, None, images[row])
            _ends(stream, pair.images)
    except Damage as damage:
        yield Fault(pair.images.name, str(damage).removeprefix(f"{pair.images.name} "), fatal=True)


def open_stream(path: Path) -> io.BufferedReader:
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == _GZIP_MAGIC
    if path.suffix == ".gz" and not is_gzip:
        raise Damage(f"{path.name} is not gzip, although its name ends in .gz.")
    if path.suffix != ".gz" and is_gzip:
        raise Damage(f"{path.name} is gzip, although its name does not end in .gz; rename it.")
    return io.BufferedReader(gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _header(stream: BinaryIO, path: Path, axes: int) -> tuple[int, ...]:
    content = _exactly(stream, path, 4 * (1 + axes))
    magic, *shape = struct.unpack(f">{1 + axes}I", content)
    if magic != _MAGIC[axes]:
        raise Damage(
            f"{path.name} is not an IDX file of bytes with {axes} axes: its magic number is 0x{magic:08x}, "
            f"not 0x{_MAGIC[axes]:08x}."
        )
    return tuple(shape)


def _exactly(stream: BinaryIO, path: Path, size: int) -> bytes:
    content = _at_most(stream, path, size)
    if len(content) < size:
        raise Damage(f"{path.name} is truncated: it is shorter than its header declares.")
    return content


def _ends(stream: BinaryIO, path: Path) -> None:
    if _at_most(stream, path, 1):
        raise Damage(f"{path.name} is longer than its header declares.")


def _at_most(stream: BinaryIO, path: Path, size: int) -> bytes:
    try:
        return stream.read(size)
    except EOFError:
        raise Damage(f"{path.name} is truncated: its gzip stream does not end.") from None
    except (OSError, zlib.error) as error:
        raise Damage(f"{path.name} is damaged: {str(error).rstrip('.')}.") from None
