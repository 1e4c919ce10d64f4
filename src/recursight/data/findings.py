"""The results of one pass over a source: counts, sizes, all errors, and one row per valid image.

The rows are stored in arrays, since there may be a million.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pyarrow as pa

from recursight.data import split as splitting
from recursight.data.records import SPLITS, Fault, Record, Source
from recursight.errors import InputError

Shape = tuple[int, int, int]
Strata = Callable[[Sequence[str]], Sequence[str]]
LISTED_CONFLICTS = 100


def each_value(values: Sequence[str]) -> Sequence[str]:
    """Makes every distinct target value a stratum."""
    return values


class Example(NamedTuple):
    """A record that could be decoded.

    Attributes:
        record: from the reader, or with the encoded bytes instead of a path.
        shape: H, W, C.
        sha256: of its pixels.
        pixels: uint8, H, W, C; None if they are not needed.
    """

    record: Record
    shape: Shape
    sha256: bytes
    pixels: np.ndarray | None


class Findings:
    """Collects results with `add`.

    Attributes:
        counts: valid images by split (None if the source does not define it) and class.
        shapes: valid images by H, W, C.
        first_of_shape: the id of the first image of each shape.
        faults: all errors, in order.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.counts: Counter[tuple[str | None, str]] = Counter()
        self.shapes: Counter[Shape] = Counter()
        self.first_of_shape: dict[Shape, str] = {}
        self.faults: list[Fault] = []
        self._label_of = {name: number for number, name in enumerate(source.classes)}
        self._split_of: dict[str | None, int] = {name: number for number, name in enumerate(SPLITS)}
        self._split_of[None] = splitting.UNSAID
        self._group_of: dict[str | None, int] = {None: -1}
        self._seen: set[int] = set()
        self._ids: list[pa.Array] = []
        self._sha256 = bytearray()
        self._numbers = array("i")

    def add(self, outcomes: list[Example | Fault]) -> list[Example]:
        """Adds a chunk and returns its valid examples."""
        good = [outcome for outcome in outcomes if self._is_good(outcome)]
        for record, shape, sha256, _ in good:
            self.counts[record.split, record.label] += 1
            self.shapes[shape] += 1
            self.first_of_shape.setdefault(shape, record.id)
            group = self._group_of.setdefault(record.group, len(self._group_of) - 1)
            self._numbers.extend((self._label_of[record.label], self._split_of[record.split], group))
            self._sha256 += sha256
        self._ids.append(pa.array([example.record.id for example in good], pa.string()))
        return good

    def _is_good(self, outcome: Example | Fault) -> TypeGuard[Example]:
        if isinstance(outcome, Fault):
            self.faults.append(outcome)
            return False
        key = hash(outcome.record.id)  # 8 bytes per id, less than the id itself
        if key in self._seen:
            self.faults.append(Fault(outcome.record.id, "is listed twice."))
            return False
        self._seen.add(key)
        return True

    @property
    def ids(self) -> pa.ChunkedArray:
        return pa.chunked_array(self._ids, pa.string())

    @property
    def labels(self) -> np.ndarray:
        """Indices into the source's classes."""
        return self._column(0)

    @property
    def official(self) -> np.ndarray:
        """The source's splits, in the format of `split.assign`."""
        return self._column(1)

    @property
    def groups(self) -> np.ndarray:
        """Indices into `group_names`; -1 for none."""
        return self._column(2)

    @property
    def group_names(self) -> list[str]:
        """Names of groups; the last one, index -1, is empty."""
        return [name for name in self._group_of if name is not None] + [""]

    @property
    def sha256(self) -> np.ndarray:
        """(N, 32) uint8."""
        return np.frombuffer(self._sha256, np.uint8).reshape(-1, 32)

    def _column(self, number: int) -> np.ndarray:
        return np.array(self._numbers[number::3], np.int64)

    def refuse(self, skip_bad: bool) -> None:
        """Raises InputError with all errors, except those that `skip_bad` allows."""
        faults = [fault for fault in self.faults if fault.fatal or not skip_bad]
        if faults:
            few = "1 error" if len(faults) == 1 else f"{len(faults):,} errors"
            hint = ""
            if any(not fault.fatal for fault in faults):
                hint = " Fix them, or skip the bad images with `recursight data import SOURCE --skip-bad`."
            raise InputError(f"the data has {few}; nothing was changed.{hint}\n" + "\n".join(map(str, faults)))
        if not self.counts:
            raise InputError("the data contains no image.")
        labels = {label for _, label in self.counts}
        empty = [name for name in self.source.classes if name not in labels]
        if empty:
            raise InputError(f"no images of class {', '.join(map(repr, empty))}: add some, or remove the class.")

    def conflicts(self) -> tuple[list[list[str]], int]:
        """Ids of identical images with different labels (the first ones only), and the number of such images."""
        labels, same = self.labels, splitting.identity(self.sha256)
        order = np.lexsort((labels, same))
        differing = (same[order][1:] == same[order][:-1]) & (labels[order][1:] != labels[order][:-1])
        images = np.unique(same[order][1:][differing])
        rows = sorted((np.flatnonzero(same == image).tolist() for image in images[:LISTED_CONFLICTS]), key=min)
        ids = self.ids
        return [[ids[row].as_py() for row in members] for members in rows], len(images)

    def splits(self, validation: float, test: float, seed: int, strata: Strata = each_value) -> np.ndarray:
        """Assigns a split to every valid image, see `split.assign`."""
        names = strata(self.source.classes)
        distinct = tuple(dict.fromkeys(names))
        number_of = {name: number for number, name in enumerate(distinct)}
        return splitting.assign(
            np.array([number_of[name] for name in names])[self.labels],
            self.official,
            splitting.units_of(self.sha256, self.groups),
            self.sha256,
            names=distinct,
            validation=validation,
            test=test,
            seed=seed,
        )

    def summary(self) -> dict[str, Any]:
        """Counts, sizes and channels, as JSON."""
        splits: dict[str, dict[str, int]] = {}
        for split in (*SPLITS, None):
            classes = {name: self.counts[split, name] for name in self.source.classes}
            if any(classes.values()):
                splits[split or "unsplit"] = classes
        sizes: Counter[str] = Counter()
        channels: Counter[str] = Counter()
        for (height, width, depth), count in self.shapes.items():
            sizes[f"{height}×{width}"] += count
            channels["grey" if depth == 1 else "rgb"] += count
        conflicts, conflict_count = self.conflicts()
        return {
            "format": self.source.format,
            "count": self.counts.total(),
            "classes": list(self.source.classes),
            "splits": splits,
            "sizes": dict(sizes.most_common()),
            "channels": dict(channels.most_common()),
            "conflicts": conflicts,
            "conflict_count": conflict_count,
            "skipped": [str(fault) for fault in self.faults],
            "ignored": list(self.source.ignored),
        }
