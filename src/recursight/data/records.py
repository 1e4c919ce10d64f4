"""The output of every reader: for each image or clip a record, or a fault if it cannot be used."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
EVALUATED = (VALIDATION, TEST)
LEFT_OUT = "left-out"

SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


class Event(NamedTuple):
    """A part of a stream with a label.

    Attributes:
        start: in seconds, or the number of a frame of the file; inclusive.
        end: the same; exclusive.
        label: name of its class.
        line: of the list that states it.
    """

    start: float
    end: float
    label: str
    line: int


class Record(NamedTuple):
    """One image or clip of a source.

    Attributes:
        id: unique within the source.
        label: name of its class; empty for a stream with events.
        split: one of `SPLITS`, or None if the source does not define it.
        group: all images of a group are in the same split; None for no group.
        image: encoded bytes, a file to read them from, or uint8 pixels (H, W or H, W, C); of a clip, a file or folder.
        events: of a stream, in order of time; None if the label holds for the whole.
        rate: frames per second of a clip without times, if the source states it.
    """

    id: str
    label: str
    split: str | None
    group: str | None
    image: bytes | Path | np.ndarray
    events: tuple[Event, ...] | None = None
    rate: float | None = None


class Fault(NamedTuple):
    """The error of one image, or of a whole file if `fatal`; `--skip-bad` does not skip fatal ones.

    The reason continues a sentence that begins with the id, as in "cat/1.png is empty."
    """

    id: str
    reason: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.id} {self.reason}"


@dataclass(frozen=True)
class Source:
    """An opened source: what its listing and headers contain, and its records, which are read on demand.

    Attributes:
        format: name of the reader.
        classes: names in the order of their labels.
        count: number of records.
        read: starts a pass over the records, in the source's order.
        ignored: files in the folder that are not part of the data set.
        clips: whether the records are clips, whose images are files or folders.
        unit: of events: `seconds`, `frames`, or None if there are none.
        assumption: what was assumed about the kind of the files, as a sentence.
    """

    format: str
    classes: tuple[str, ...]
    count: int
    read: Callable[[], Iterator[Record | Fault]]
    ignored: tuple[str, ...] = ()
    clips: bool = False
    unit: str | None = None
    assumption: str = ""


def natural_order(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """A sort key: numbers by value, so that "2" comes before "10"; case-insensitive."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part], name


def leaves(path: Path, root: Path) -> bool:
    """Whether a path, with links resolved, is outside a folder; links of DVC into its cache are allowed."""
    target = path.resolve()
    return not target.is_relative_to(root) and _CACHED.search(target.as_posix()) is None
