"""What a reader yields, whatever the format: one record per image, or the fault that stands in its place."""

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


class Record(NamedTuple):
    """One image of a source.

    Attributes:
        id: names it within the source, and nothing else does.
        label: name of its class.
        split: one of `SPLITS`, or None where the source does not say.
        group: images of one group stay in one split; None: it may go anywhere.
        image: encoded bytes, a file to read them from, or uint8 pixels (H, W or H, W, C).
    """

    id: str
    label: str
    split: str | None
    group: str | None
    image: bytes | Path | np.ndarray


class Fault(NamedTuple):
    """What is wrong with one image, or, if `fatal`, with a whole file: then `--skip-bad` does not help.

    The reason goes on where the id ends, as in "cat/1.png is empty."
    """

    id: str
    reason: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.id} {self.reason}"


@dataclass(frozen=True)
class Source:
    """An opened source: what its listing and headers say, and its records, which are read as they are asked for.

    Attributes:
        format: the reader's name.
        classes: names in the order of their labels.
        count: records to expect.
        read: starts a pass over the records, in the source's order.
        ignored: files in the folder that belong to no record.
    """

    format: str
    classes: tuple[str, ...]
    count: int
    read: Callable[[], Iterator[Record | Fault]]
    ignored: tuple[str, ...] = ()


def natural_order(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """A sort key: numbers by value, so that "2" comes before "10"; letters without regard to case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part], name


def leaves(path: Path, root: Path) -> bool:
    """Whether a path, links followed, lies outside a folder; DVC's own links into its cache do not count."""
    target = path.resolve()
    return not target.is_relative_to(root) and _CACHED.search(target.as_posix()) is None
