"""Progress of a command: a bar on a terminal, a plain line every second elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_SECONDS = 1.0


class Report(Protocol):
    """Called with how much is done and a remark on it."""

    def __call__(self, done: int, remark: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int) -> Iterator[Report]:
    """Yields a function to call as work proceeds.

    Args:
        title: of the work, such as `train gru`.
        total: at which the work is complete.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[remark]}")) as bar:
            task = bar.add_task(title, total=total, remark="")
            yield lambda done, remark="": bar.update(task, completed=done, remark=remark)
    else:
        yield _lines(title, total)


def _lines(title: str, total: int) -> Report:
    started = last = time.monotonic()

    def report(done: int, remark: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS or done >= total:
            last = now
            left = (now - started) / max(done, 1) * (total - done)
            print(f"{title}: {done}/{total}  {remark}  {left:.0f} s left", flush=True)

    return report
