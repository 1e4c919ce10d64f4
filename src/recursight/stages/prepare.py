"""Stage `prepare`: data/ and the prepare section of params.yaml in, the store out."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from recursight import params
from recursight.data.examples import Progress
from recursight.data.prepare import prepare
from recursight.data.versions import require_genuine
from recursight.executors.local import exclusive_lock
from recursight.layout import Layout
from recursight.progress import Report, progress


def run(layout: Layout) -> None:
    """Makes the store and prints what it contains.

    Raises:
        InputError: if data/ is missing, invalid, or not what data.dvc pins.
    """
    loaded = params.load(layout.params)
    settings = loaded.prepare
    layout.require_data()
    started = time.perf_counter()
    with exclusive_lock(layout, "prepare"), progress_of("prepare") as report:
        require_genuine(layout)
        summary = prepare(
            layout.data,
            layout.store,
            size=None if settings.size is None else (settings.size[0], settings.size[1]),
            resize=settings.resize,
            channels=settings.channels,
            validation=settings.validation,
            test=settings.test,
            seed=settings.seed,
            **settings.frames.model_dump(),
            strata=loaded.built_task.strata,
            progress=report,
        )
    print(describe(summary, time.perf_counter() - started))


@contextmanager
def progress_of(title: str, unit: str = "frames") -> Iterator[Progress]:
    """Yields a function that receives the progress of a pass over a source; its first call states the total."""
    with ExitStack() as stack:
        report: Report | None = None
        started = time.perf_counter()

        def passed(done: int, total: int) -> None:
            nonlocal report
            report = report or stack.enter_context(progress(title, total))
            report(done, f"{done / max(time.perf_counter() - started, 1e-9):,.0f} {unit}/s")

        yield passed


def describe(summary: dict[str, Any], seconds: float) -> str:
    """Summarises a store in a few lines."""
    height, width, channels = summary["shape"]
    splits = ", ".join(f"{name} {count:,}" for name, count in summary["splits"].items())
    noun, frames = ("clip", f"{summary['frames']:,} frames, ") if summary["kind"] == "clips" else ("image", "")
    lines = [
        f"{summary['count']:,} {noun}s with {summary['values']:,} different labels, {frames}{height}×{width}, "
        f"{'grey' if channels == 1 else 'RGB'}, from {summary['source']['format']}: {splits} ({seconds:.1f} s)"
    ]
    if summary["left_out"]:
        lines.append(f"{summary['left_out']:,} left out: equal to, or grouped with, one of an evaluated split")
    if summary["too_short"]:
        lines.append(f"{summary['too_short']:,} events are left out: at this rate, no frame is within them")
    if summary["conflict_count"]:
        lines.append(f"{summary['conflict_count']:,} {noun}s have two or more labels:")
        lines += [f"  {' = '.join(ids)}" for ids in summary["conflicts"]]
    return "\n".join(lines)
