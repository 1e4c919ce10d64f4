"""The store: the format in which training and evaluation read images and clips.

A folder of five files:

- `frames.npy`: uint8, F H W C, all frames of all examples one after another.
- `examples.parquet`: one row per example: id, first_frame, frames (their number), rate (per second; 0 for stills),
  split (one of `SPLITS`, or `left-out` for a training example that is identical to one of another split), group (empty
  for none) and sha256 (hex, of its pixels).
- `targets.parquet`: the labels, any number of rows per example: example (row of examples.parquet), start_frame,
  end_frame (exclusive) and value (a categorical with the source's order of values; only tasks interpret it).
- `statistics.parquet`: one row per example, statistics of its pixels that drift is detected with.
- `store.json`: shape, counts, normalisation, digest, `kind` (stills or clips), and for clips `window`: null, or frames
  and overlap of the parts that a training cuts longer examples into; the store has them whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from recursight.data.records import SPLITS
from recursight.data.statistics import image_statistics
from recursight.errors import InputError
from recursight.files import read_json

FORMAT = 2
_MOVED_BYTES = 16_000_000
EARLIER = ("images.npy", "manifest.parquet")  # of a store of format 1

__all__ = ["SPLITS", "FrameWriter", "Store", "open_store"]


@dataclass(frozen=True)
class Store:
    """An opened store.

    Attributes:
        frames: uint8, F H W C, memory-mapped and read-only.
        examples: as in examples.parquet.
        targets: as in targets.parquet; `value` is a categorical.
        mean: per channel, of the training split, on the scale 0 to 1.
        std: the standard deviation, like mean; never zero.
        digest: SHA-256 of everything above that a training depends on.
        summary: the content of store.json.
    """

    frames: np.ndarray
    examples: pd.DataFrame
    targets: pd.DataFrame
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    summary: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C of a frame."""
        _, h, w, c = self.frames.shape
        return h, w, c

    @cached_property
    def stills(self) -> bool:
        """Whether every example is one frame; then frame i is that of example i."""
        return len(self.frames) == len(self.examples)

    def indices(self, split: str) -> np.ndarray:
        """Examples of one split, int64, in the order of the store."""
        return np.flatnonzero((self.examples["split"] == split).to_numpy())

    def targets_of(self, rows: np.ndarray) -> pd.DataFrame:
        """Targets of some examples."""
        return self.targets[self.targets["example"].isin(rows)]

    def first_frames(self, rows: np.ndarray) -> np.ndarray:
        """uint8, M H W C: the first frame of each of some examples."""
        frames: np.ndarray = self.frames[self.examples["first_frame"].to_numpy()[rows]]
        return frames


def open_store(folder: Path) -> Store:
    """Opens a store without reading its frames.

    Raises:
        InputError: if there is none, it was made by an earlier version, or its files are inconsistent.
    """
    if any((folder / name).exists() for name in EARLIER):
        raise InputError(f"{folder} was made by an earlier version of recursight: run `dvc repro prepare`.")
    try:
        summary = read_json(folder / "store.json")
        examples = pd.read_parquet(folder / "examples.parquet")
        targets = pd.read_parquet(folder / "targets.parquet")
        frames = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing: make the store with `dvc repro prepare`.") from None
    listed = int(examples["frames"].sum())
    if listed != len(frames):
        raise InputError(
            f"{folder}: {len(frames)} frames, but examples.parquet lists {listed}; run `dvc repro -f prepare`."
        )
    return Store(
        frames=frames,
        examples=examples,
        targets=targets,
        mean=tuple(summary["mean"]),
        std=tuple(summary["std"]),
        digest=summary["digest"],
        summary=summary,
    )


class Measured(NamedTuple):
    """What is computed from the pixels of N examples.

    Attributes:
        lengths: frames of each, int64, N.
        sums: exact sums and sums of squares of each channel, int64, 2 N C.
        statistics: averages over the frames of each example, float32, N; see `data.statistics`.
    """

    lengths: np.ndarray
    sums: np.ndarray
    statistics: dict[str, np.ndarray]


def measure(frames: np.ndarray, lengths: np.ndarray) -> Measured:
    """Measures examples whose frames (uint8, F H W C) stand one after another."""
    starts = np.cumsum(lengths) - lengths
    sums = frames.sum(axis=(1, 2), dtype=np.int64)
    squares = np.square(frames, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
    statistics = {
        name: (np.add.reduceat(values, starts) / lengths).astype(np.float32)
        for name, values in image_statistics(frames).items()
    }
    return Measured(lengths, np.add.reduceat(np.stack([sums, squares]), starts, axis=1), statistics)


def as_one(parts: Sequence[Measured]) -> Measured:
    """One example that was measured in parts."""
    weights = np.concatenate([part.lengths for part in parts])
    statistics = {
        name: np.average([part.statistics[name][0] for part in parts], weights=weights).astype(np.float32).reshape(1)
        for name in parts[0].statistics
    }
    return Measured(weights.sum(keepdims=True), np.sum([part.sums for part in parts], axis=0), statistics)


class FrameWriter:
    """Writes an .npy file whose number of frames is known only at the end.

    NumPy pads the header so that the first axis can be rewritten in place. Writing to a stream instead of a memory map
    keeps the frames out of the memory of this process.

    Attributes:
        count: number of frames so far.
        shape: H, W, C of each.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self._measured: list[Measured] = []

    def append(self, frames: np.ndarray, lengths: Sequence[int] | None = None) -> None:
        """Appends examples.

        Args:
            frames: uint8, F H W C, the frames of all examples one after another.
            lengths: number of frames of each example; None for one each.
        """
        if self.count == 0:
            self.begin(frames.shape[1:])
        self.stream.write(np.ascontiguousarray(frames).data)
        counts = np.ones(len(frames), np.int64) if lengths is None else np.asarray(lengths, np.int64)
        self.add(measure(frames, counts))

    def begin(self, shape: tuple[int, ...]) -> None:
        """Writes the header for frames of one shape (H, W, C)."""
        self.shape = shape
        self._write_header()

    def place(self, first: int, frames: np.ndarray) -> None:
        """Writes frames of an example that begins, or goes on, at frame `first`; from any thread, in any order."""
        os.pwrite(self.stream.fileno(), np.ascontiguousarray(frames).data, self._start + first * prod(self.shape))

    def add(self, measured: Measured) -> None:
        """Adds the next examples, whose frames are written."""
        self.count += int(measured.lengths.sum())
        self._measured.append(measured)

    def move(self, source: int, target: int, count: int) -> None:
        """Moves frames that were placed towards the beginning of the file."""
        size, file = prod(self.shape), self.stream.fileno()
        step = max(1, _MOVED_BYTES // size)
        for done in range(0, count, step):
            content = os.pread(file, min(step, count - done) * size, self._start + (source + done) * size)
            os.pwrite(file, content, self._start + (target + done) * size)

    def finish(self) -> None:
        """Writes the final header, and cuts off what lies behind the last frame."""
        self.stream.seek(0)
        self._write_header()
        self.stream.truncate(self._start + self.count * prod(self.shape))

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each example, int64."""
        return np.concatenate([part.lengths for part in self._measured])

    def moments(self, chosen: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of the chosen examples, on the scale 0 to 1; from exact sums."""
        sums = np.concatenate([part.sums for part in self._measured], axis=1)[:, chosen].sum(axis=1)
        pixels = int(self.lengths[chosen].sum()) * self.shape[0] * self.shape[1]
        mean = sums[0] / pixels
        # At least one grey level: images are divided by it.
        deviation = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 1.0))
        return [round(float(value), 6) for value in mean / 255], [round(float(value), 6) for value in deviation / 255]

    def statistics(self) -> dict[str, np.ndarray]:
        """Statistics of every example, averaged over its frames; see `data.statistics`."""
        names = self._measured[0].statistics
        return {name: np.concatenate([part.statistics[name] for part in self._measured]) for name in names}

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)
        self.stream.flush()
        self._start = self.stream.tell()
