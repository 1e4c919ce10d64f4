"""One pass over a source of clips: first the headers of all, then the frames of each, on all cores.

Memory is bounded by a few frames and a chunk of two megabytes for each core, however long a clip is.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from recursight.data.clips import BadClip, Clip, Conversion, open_clip
from recursight.data.examples import Progress, cores
from recursight.data.findings import Example, Findings, Interval, Shape
from recursight.data.images import without_warnings
from recursight.data.records import Fault, Record

_LARGE_PIXELS = 2_000_000
_one_large_at_a_time = threading.Lock()  # otherwise memory would grow with the number of threads
_REPORT_SECONDS = 0.5


class Planned(NamedTuple):
    """A clip whose header was read.

    Attributes:
        record: from the reader.
        shape: H, W, C of its converted frames.
        frames: number of them.
        rate: of them, per second.
        intervals: its events, in converted frames.
    """

    record: Record
    shape: Shape
    frames: int
    rate: float
    intervals: tuple[Interval, ...]


Take = Callable[[Planned, int, np.ndarray], None]
"""Receives frames (uint8, F H W C) of a clip and the number of those before, in order, on the clip's thread."""


def plan(findings: Findings, conversion: Conversion) -> list[Planned | Fault]:
    """Reads the headers of a whole source; a clip whose header or list is wrong becomes a fault."""

    def work(item: Record | Fault) -> Planned | Fault:
        if isinstance(item, Fault):
            return item
        try:
            with open_clip(_path(item), conversion, item.rate) as clip:
                intervals = tuple(_intervals(item, clip, findings.source.unit))
                return Planned(item, clip.shape, clip.count, clip.rate, intervals)
        except BadClip as bad:
            return Fault(item.id, str(bad))

    with _Pool() as pool:
        return list(pool.map(work, findings.source.read()))


def decode(
    findings: Findings,
    planned: Sequence[Planned | Fault],
    conversion: Conversion,
    take: Take | None = None,
    progress: Progress | None = None,
) -> Iterator[Example]:
    """Decodes each clip once and yields the valid ones in order; errors are recorded in `findings`.

    Args:
        findings: of the source; updated during the pass.
        planned: of `plan`, with the same conversion.
        conversion: of the frames.
        take: receives the frames.
        progress: receives the number of decoded frames and their total.
    """
    total = sum(each.frames for each in planned if isinstance(each, Planned))
    done = [0]
    with _Pool() as pool:

        def work(item: Planned | Fault) -> Example | Fault:
            if isinstance(item, Fault):
                return item
            digest, before = hashlib.sha256(), 0
            try:
                with open_clip(_path(item.record), conversion, item.record.rate) as clip, _turn(clip):
                    for chunk in clip.chunks():
                        pool.require_running()
                        digest.update(chunk.data)
                        if take is not None:
                            take(item, before, chunk)
                        before += len(chunk)
                        done[0] += len(chunk)
            except BadClip as bad:
                return Fault(item.record.id, str(bad))
            return Example(item.record, item.shape, digest.digest(), None, item.frames, item.rate, item.intervals)

        for outcome in pool.map(work, planned, lambda: progress and progress(min(done[0], total), total)):
            yield from findings.add([outcome])
    if progress and total:
        progress(total, total)


class _Pool:
    """Threads that stop soon after an error or Ctrl-C, even in the middle of a long clip."""

    def __enter__(self) -> "_Pool":
        self._quiet = without_warnings()
        self._quiet.__enter__()
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(cores())
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)
        self._quiet.__exit__(None, None, None)

    def map(
        self, work: Callable[[Any], Any], items: Iterable[Any], waiting: Callable[[], object] = lambda: None
    ) -> Iterator[Any]:
        """Results in order; `waiting` is called now and then."""
        for future in [self._threads.submit(work, item) for item in items]:
            yield _result(future, waiting)
            waiting()

    def require_running(self) -> None:
        if self._stopped.is_set():
            raise InterruptedError


def _result(future: Future[Any], waiting: Callable[[], object]) -> Any:
    while True:
        try:
            return future.result(_REPORT_SECONDS)
        except StillRunning:
            if future.done():
                raise
            waiting()


def _turn(clip: Clip) -> Any:
    height, width, _ = clip.source_shape
    return _one_large_at_a_time if height * width > _LARGE_PIXELS else nullcontext()


def _path(record: Record) -> Any:
    return record.image


def _intervals(record: Record, clip: Clip, unit: str | None) -> Iterator[Interval]:
    """Events in frames of the store; those that are too short to contain one are marked by equal ends."""
    for start, end, label, line in record.events or ():
        if unit == "frames":
            if end > clip.source_frames:
                raise BadClip(f"has {clip.source_frames} frames, but an event ends at {end} (events.csv line {line}).")
            start, end = clip.seconds_of(int(start)), clip.seconds_of(int(end))
        elif end > clip.seconds + 0.5 / clip.rate:
            raise BadClip(f"lasts {clip.seconds:.3f} s, but an event ends at {end:g} s (events.csv line {line}).")
        yield Interval(clip.frame_at(start), clip.frame_at(end), label)
