"""One pass over a source: every image decoded, in order, by all cores, and everything wrong with it noted.

Import and prepare both validate by this pass. What it holds at a time is bounded: a few chunks of a few megabytes.
"""

import hashlib
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from recursight.data.images import BadImage
from recursight.data.records import Fault, Record, Source
from recursight.errors import InputError

Progress = Callable[[int, int], None]
"""Told after each chunk how many records are done, and of how many."""

_CHUNK_RECORDS = 128
_CHUNK_BYTES = 4_000_000


class Example(NamedTuple):
    """A record with its pixels (uint8, H, W, C) and their SHA-256."""

    record: Record
    pixels: np.ndarray
    sha256: bytes


@dataclass
class Findings:
    """What a pass came across.

    Attributes:
        counts: good records by split (None: the source does not say) and class.
        shapes: good records by H, W, C of their pixels.
        faults: everything wrong, in order.
    """

    counts: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    shapes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    first_of_shape: dict[tuple[int, int, int], str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _ids: set[int] = field(default_factory=set)

    def add(self, example: Example) -> bool:
        """Counts an example; False if there was one of that id before, which is a fault."""
        record = example.record
        key = hash(record.id)  # 8 bytes for each id that was seen, not the id
        if key in self._ids:
            self.faults.append(Fault(record.id, "is listed twice."))
            return False
        self._ids.add(key)
        shape: tuple[int, int, int] = example.pixels.shape
        self.counts[record.split, record.label] += 1
        self.shapes[shape] += 1
        self.first_of_shape.setdefault(shape, record.id)
        return True

    def refuse(self, source: Source, skip_bad: bool) -> None:
        """Raises InputError with every fault, unless they are to be skipped and can be."""
        faults = [fault for fault in self.faults if fault.fatal or not skip_bad]
        if faults:
            few = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
            skippable = any(not fault.fatal for fault in faults)
            hint = (
                " Mend them, or leave the bad images out with `recursight data import --skip-bad`." if skippable else ""
            )
            raise InputError(f"the data has {few}; nothing was changed.{hint}\n" + "\n".join(map(str, faults)))
        if not self.counts:
            raise InputError("the data holds no usable image.")
        labels = {label for _, label in self.counts}
        empty = [name for name in source.classes if name not in labels]
        if empty:
            raise InputError(f"{_names(empty)} no images; remove what declares it, or give it some.")
        if len(labels) < 2:
            raise InputError(f"the data has one class only ({labels.pop()!r}); a classifier needs two or more.")


def _names(classes: list[str]) -> str:
    listed = ", ".join(map(repr, classes[:20])) + (", ..." if len(classes) > 20 else "")
    return f"class {listed} has" if len(classes) == 1 else f"classes {listed} have"


def examples(
    source: Source,
    decode: Callable[[Record], np.ndarray],
    findings: Findings,
    progress: Progress | None = None,
) -> Iterator[list[Example]]:
    """Decodes a whole source, in order; what cannot be decoded goes to `findings` instead.

    Yields chunks; what one holds together is a few megabytes.
    """
    done = 0
    with warnings.catch_warnings():  # Pillow warns of oddities in metadata; only pixels matter here
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for chunk in _decoded_chunks(source.read(), decode):
            good = []
            for outcome in chunk:
                if isinstance(outcome, Fault):
                    findings.faults.append(outcome)
                elif findings.add(outcome):
                    good.append(outcome)
            done += len(chunk)
            if good:
                yield good
            if progress:
                progress(done, source.count)


def _decoded_chunks(
    records: Iterator[Record | Fault], decode: Callable[[Record], np.ndarray]
) -> Iterator[list[Example | Fault]]:
    """Keeps all cores busy with at most a few chunks; the first ones are short, to learn how large the images are."""

    def work(chunk: list[Record | Fault]) -> list[Example | Fault]:
        return [item if isinstance(item, Fault) else _example(item, decode) for item in chunk]

    threads = cores()
    pending: deque[Future[list[Example | Fault]]] = deque()
    length, largest = 1, 1
    with ThreadPoolExecutor(threads) as pool:
        while True:
            while len(pending) <= threads and (chunk := list(islice(records, length))):
                pending.append(pool.submit(work, chunk))
            if not pending:
                return
            outcome = pending.popleft().result()
            largest = max(largest, *(item.pixels.nbytes for item in outcome if isinstance(item, Example)), 1)
            length = max(1, min(2 * length, _CHUNK_RECORDS, _CHUNK_BYTES // largest))
            yield outcome


def _example(record: Record, decode: Callable[[Record], np.ndarray]) -> Example | Fault:
    try:
        pixels = np.ascontiguousarray(decode(record))
    except BadImage as bad:
        return Fault(record.id, str(bad))
    return Example(record, pixels, hashlib.sha256(pixels.data).digest())


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
