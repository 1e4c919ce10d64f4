"""Two made data sets in which only the order of frames, or memory, gives the answer; from scikit-learn's digits.

`moving-digits`: clips of a digit that moves in one of eight directions, or stands still: nine classes. 32 frames of
32×32 pixels, 10 a second. The digit's places form a 4×4 grid, 6 pixels apart, that lies anywhere in the frame. A clip
shows each place exactly twice, whatever its class: moving, the digit crosses a row (column, diagonal) of the grid
twice, entering again where it left, then jumps to another row; standing still, it stays for two frames, then jumps.
Hence frames without their order hold no information about the class, nor does any single frame: 1/9 is the most that a
network can reach from one frame, from frames in random order, or from their mean. In order, they determine the class:
100 %.

`moving-digits-events`: streams of 400 frames of 16×16 pixels, 10 a second, in which digits show for 5 to 9 frames each,
anywhere, with gaps. Events: `three_seven` while a 7 shows that appears within 20 frames after the last frame of a 3,
whatever shows between them; `digit` while any other digit shows. Frames without a digit are background. A 7 comes 4 to
16 frames after a 3, or 26 or more, or without one. The label of a frame is determined by the frames up to it: a causal
network can reach an average precision of 1. From single frames, background and `digit` can be told apart, but not the
two kinds of 7.

The same seed gives the same pixels. The splits share no image of a digit.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recursight.data.records import SPLITS

RATE = 10
SIDE = 8  # of a digit, in pixels

DIRECTIONS = {
    "right": (0, 1),
    "down_right": (1, 1),
    "down": (1, 0),
    "down_left": (1, -1),
    "left": (0, -1),
    "up_left": (-1, -1),
    "up": (-1, 0),
    "up_right": (-1, 1),
    "still": (0, 0),
}
GRID, STEP, CANVAS = 4, 6, 32
CLIPS = {"train": 140, "validation": 30, "test": 30}  # of each class

STREAM_FRAMES, STREAM_CANVAS, WITHIN = 400, 16, 20
STREAMS = {"train": 96, "validation": 24, "test": 24}
TYPICAL = 60  # images of each digit that are used in streams: those nearest to the mean, which are all legible


class Shown(NamedTuple):
    """A digit in a stream, for the frames from `start` to `end` (exclusive)."""

    digit: int
    start: int
    end: int


def make_clips(folder: Path, seed: int = 0) -> None:
    """Writes moving-digits into an empty folder: compressed arrays and manifest.csv."""
    draw = np.random.default_rng(seed)
    rows = []
    for split, digits in _by_split(_digits()).items():
        images = np.concatenate(list(digits.values()))
        for name in DIRECTIONS:
            (folder / split / name).mkdir(parents=True)
            for number in range(CLIPS[split]):
                path = f"{split}/{name}/{number:03}.npz"
                np.savez_compressed(folder / path, clip(name, images[draw.integers(len(images))], draw))
                rows.append([path, name, split, RATE])
    _write(folder / "manifest.csv", ["path", "label", "split", "rate"], rows)


def clip(direction: str, digit: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """One clip, uint8, T H W."""
    offset = draw.integers(0, CANVAS - SIDE - (GRID - 1) * STEP + 1, 2)
    frames = np.zeros((2 * GRID * GRID, CANVAS, CANVAS), np.uint8)
    for frame, place in zip(frames, places(direction, draw), strict=True):
        top, left = offset + STEP * place
        frame[top : top + SIDE, left : left + SIDE] = digit
    return frames


def places(direction: str, draw: np.random.Generator) -> np.ndarray:
    """Row and column in the grid at each frame, T × 2; each place occurs twice."""
    move = np.array(DIRECTIONS[direction])
    cells = np.stack(np.divmod(np.arange(GRID * GRID), GRID), axis=1)
    if not move.any():
        return np.repeat(draw.permutation(cells), 2, axis=0)
    starts = cells[cells[:, 1] == 0] if move[1] else cells[cells[:, 0] == 0]  # one on each row, column or diagonal
    steps = move * np.arange(2 * GRID)[:, None]
    paths = [start + move * draw.integers(GRID) + steps for start in draw.permutation(starts)]
    return np.concatenate(paths) % GRID


def make_streams(folder: Path, seed: int = 0) -> None:
    """Writes moving-digits-events into an empty folder: compressed arrays and events.csv."""
    draw = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for split, digits in _by_split(_typical(_digits())).items():
        for number in range(STREAMS[split]):
            path = f"{split}-{number:02}.npz"
            shown = schedule(draw)
            np.savez_compressed(folder / path, _drawn(shown, digits, draw))
            rows += [[path, start, end, label, split, RATE] for start, end, label in labelled(shown)]
    _write(folder / "events.csv", ["path", "start_frame", "end_frame", "label", "split", "rate"], rows)


def schedule(draw: np.random.Generator) -> list[Shown]:
    """Which digits show when. Some sevens follow a three within `WITHIN` frames, with margins on both sides."""
    shown: list[Shown] = []
    at = int(draw.integers(2, 12))
    three_ended = -1000
    while at + 9 < STREAM_FRAMES:
        digit = int(draw.choice([3, 7, int(draw.integers(10))], p=[0.3, 0.3, 0.4]))
        since = at - three_ended  # frames from the last one of a three to the first one of this digit
        if digit == 7 and WITHIN - 4 < since <= WITHIN + 5:
            at += WITHIN + 6 - since
        end = at + int(draw.integers(5, 10))
        if end > STREAM_FRAMES:
            break
        shown.append(Shown(digit, at, end))
        if digit == 3:
            three_ended = end - 1
        at = end + int(draw.integers(3, 14))
    return shown


def labelled(shown: list[Shown]) -> Iterator[tuple[int, int, str]]:
    """First frame, end and label of each event."""
    three_ended = -1000
    for digit, start, end in shown:
        follows = digit == 7 and start - three_ended <= WITHIN
        yield start, end, "three_seven" if follows else "digit"
        if digit == 3:
            three_ended = end - 1


def _drawn(shown: list[Shown], digits: dict[int, np.ndarray], draw: np.random.Generator) -> np.ndarray:
    frames = np.zeros((STREAM_FRAMES, STREAM_CANVAS, STREAM_CANVAS), np.uint8)
    for digit, start, end in shown:
        top, left = draw.integers(0, STREAM_CANVAS - SIDE + 1, 2)
        image = digits[digit][draw.integers(len(digits[digit]))]
        frames[start:end, top : top + SIDE, left : left + SIDE] = image
    return frames


def _digits() -> dict[int, np.ndarray]:
    """Scikit-learn's images of each digit, uint8, N 8 8."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    return {digit: images[loaded.target == digit] for digit in range(10)}


def _typical(digits: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    chosen = {}
    for digit, images in digits.items():
        distance = ((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2))
        chosen[digit] = images[np.sort(np.argsort(distance, kind="stable")[:TYPICAL])]
    return chosen


def _by_split(digits: dict[int, np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """Of five images of each digit, three for training and one for each of the others."""
    part = dict(zip(SPLITS, ((0, 1, 2), (3,), (4,)), strict=True))
    return {
        split: {digit: images[np.isin(np.arange(len(images)) % 5, numbers)] for digit, images in digits.items()}
        for split, numbers in part.items()
    }


def _write(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([columns, *rows])
