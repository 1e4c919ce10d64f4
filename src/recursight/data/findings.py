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


class Interval(NamedTuple):
    """Frames of a stream that have a label; `end` is exclusive."""

    start: int
    end: int
    label: str


class Example(NamedTuple):
    """A record that could be decoded.

    Attributes:
        record: from the reader, or with the encoded bytes instead of a path.
        shape: H, W, C.
        sha256: of its pixels.
        pixels: uint8, H, W, C; None if they are not needed, and of clips.
        frames: their number.
        rate: of frames per second; 0 of stills.
        intervals: a stream's events, in frames.
    """

    record: Record
    shape: Shape
    sha256: bytes
    pixels: np.ndarray | None
    frames: int = 1
    rate: float = 0.0
    intervals: tuple[Interval, ...] = ()


class Findings:
    """Collects results with `add`.

    Attributes:
        counts: valid images, clips or events by split (None if the source does not define it) and class.
        shapes: valid images or clips by H, W, C.
        first_of_shape: the id of the first image of each shape.
        faults: all errors, in order.
        too_short: number of events that contain no frame; they are left out.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.counts: Counter[tuple[str | None, str]] = Counter()
        self.shapes: Counter[Shape] = Counter()
        self.first_of_shape: dict[Shape, str] = {}
        self.faults: list[Fault] = []
        self.too_short = 0
        self._label_of = {name: number for number, name in enumerate(source.classes)}
        self._split_of: dict[str | None, int] = {name: number for number, name in enumerate(SPLITS)}
        self._split_of[None] = splitting.UNSAID
        self._group_of: dict[str | None, int] = {None: -1}
        self._seen: set[int] = set()
        self._ids: list[pa.Array] = []
        self._sha256 = bytearray()
        self._numbers = array("i")
        self._lengths, self._rates = array("q"), array("f")  # of clips
        self._events = array("q")  # example, start_frame, end_frame, label of each

    def add(self, outcomes: list[Example | Fault]) -> list[Example]:
        """Adds a chunk and returns its valid examples."""
        good = [outcome for outcome in outcomes if self._is_good(outcome)]
        for example in good:
            record, shape, sha256, *_ = example
            if self.source.clips:
                self._add_clip(example)
            if record.events is None:
                self.counts[record.split, record.label] += 1
            self.shapes[shape] += 1
            self.first_of_shape.setdefault(shape, record.id)
            group = self._group_of.setdefault(record.group, len(self._group_of) - 1)
            label = -1 if record.events is not None else self._label_of[record.label]
            self._numbers.extend((label, self._split_of[record.split], group))
            self._sha256 += sha256
        self._ids.append(pa.array([example.record.id for example in good], pa.string()))
        return good

    def _add_clip(self, example: Example) -> None:
        number = len(self._lengths)
        self._lengths.append(example.frames)
        self._rates.append(example.rate)
        for start, end, label in example.intervals:
            if start < end:
                self._events.extend((number, start, end, self._label_of[label]))
                self.counts[example.record.split, label] += 1
            else:
                self.too_short += 1

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
    def lengths(self) -> np.ndarray:
        """Frames of each example."""
        return np.array(self._lengths, np.int64) if self.source.clips else np.ones(len(self.labels), np.int64)

    @property
    def rates(self) -> np.ndarray:
        """Frames per second of each example, float32; 0 of stills."""
        return np.array(self._rates, np.float32) if self.source.clips else np.zeros(len(self.labels), np.float32)

    @property
    def targets(self) -> np.ndarray:
        """Columns example, start_frame, end_frame, label: the events of streams, else the label of each example."""
        if self.source.unit is not None:
            return np.array(self._events, np.int64).reshape(-1, 4)
        count = len(self.labels)
        return np.stack([np.arange(count), np.zeros(count, np.int64), self.lengths, self.labels], axis=1)

    @property
    def labels(self) -> np.ndarray:
        """Indices into the source's classes; -1 for streams with events."""
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
                hint = f" Fix them, or skip the bad {self.noun}s with `recursight data import SOURCE --skip-bad`."
            raise InputError(f"the data has {few}; nothing was changed.{hint}\n" + "\n".join(map(str, faults)))
        if not self.shapes:
            raise InputError(f"the data contains no {self.noun}.")
        labels = {label for _, label in self.counts}
        empty = [name for name in self.source.classes if name not in labels]
        if empty:
            what = "events" if self.source.unit else f"{self.noun}s"
            raise InputError(f"no {what} of class {', '.join(map(repr, empty))}: add some, or remove the class.")

    @property
    def noun(self) -> str:
        """What an example of the source is called."""
        return "clip" if self.source.clips else "image"

    def conflicts(self) -> tuple[list[list[str]], int]:
        """Ids of identical images with different labels (the first ones only), and the number of such images."""
        if self.source.unit is not None:
            return [], 0
        labels, same = self.labels, splitting.identity(self.sha256)
        order = np.lexsort((labels, same))
        differing = (same[order][1:] == same[order][:-1]) & (labels[order][1:] != labels[order][:-1])
        images = np.unique(same[order][1:][differing])
        rows = sorted((np.flatnonzero(same == image).tolist() for image in images[:LISTED_CONFLICTS]), key=min)
        ids = self.ids
        return [[ids[row].as_py() for row in members] for members in rows], len(images)

    def splits(self, validation: float, test: float, seed: int, strata: Strata = each_value) -> np.ndarray:
        """Assigns a split to every valid image or clip, see `split.assign`."""
        names = strata(self.source.classes)
        distinct = tuple(dict.fromkeys(names))
        number_of = {name: number for number, name in enumerate(distinct)}
        return splitting.assign(
            self._strata(np.array([number_of[name] for name in names])),
            self.official,
            splitting.units_of(self.sha256, self.groups),
            self.sha256,
            names=distinct,
            validation=validation,
            test=test,
            seed=seed,
        )

    def _strata(self, stratum_of: np.ndarray) -> splitting.Strata:
        """Strata of each example, from those of the labels; a stream has those of all its events, once each."""
        if self.source.unit is None:
            return splitting.Strata(stratum_of[self.labels])
        targets = self.targets
        pairs = np.unique(np.stack([targets[:, 0], stratum_of[targets[:, 3]]]), axis=1)
        return splitting.Strata(pairs[1], np.bincount(pairs[0], minlength=len(self.labels)))

    def summary(self) -> dict[str, Any]:
        """Counts, sizes and channels, as JSON; of clips also lengths and rates."""
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
            "kind": "clips" if self.source.clips else "stills",
            "count": self.shapes.total(),
            "classes": list(self.source.classes),
            "splits": splits,
            "sizes": dict(sizes.most_common()),
            "channels": dict(channels.most_common()),
            "conflicts": conflicts,
            "conflict_count": conflict_count,
            "skipped": [str(fault) for fault in self.faults],
            "ignored": list(self.source.ignored),
        } | (self._clips() if self.source.clips else {"tasks": ["classification"]})

    def _clips(self) -> dict[str, Any]:
        lengths, rates = self.lengths, self.rates
        return {
            "frames": {
                "total": int(lengths.sum()),
                "shortest": int(lengths.min()),
                "median": float(np.median(lengths)),
                "longest": int(lengths.max()),
            },
            "seconds": round(float((lengths / rates).sum()), 1),
            "rates": {f"{rate:g}": count for rate, count in Counter(rates.tolist()).most_common()},
            "events": None if self.source.unit is None else len(self.targets),
            "too_short": self.too_short,
            "assumption": self.source.assumption,
            "tasks": ["classification", "frame_labels"] if self.source.unit is None else ["frame_labels"],
        }
