"""The board: what every stage of a running pipeline is doing, for whoever looks at the terminal."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

NOISE = (
    "Updating lock file",
    "Generating lock file",
    "To track the changes",
    "To enable auto staging",
    "Use `dvc push`",
)
NOISE_PREFIXES = ("\t", "> ", "Running stage", *NOISE)


class Board:
    """Plain lines, each opening with the stage that it is about.

    On a terminal, stages at work share a live area at the bottom, one line each; finished ones scroll above it.

    Args:
        silent: show nothing, for a flow that nobody watches at a terminal.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.lock = threading.Lock()
        self.width = 0
        self.live: Any = None
        self.at_work: dict[str, str] = {}
        if sys.stdout.isatty() and not silent:
            from rich.live import Live

            self.live = Live(get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> "Board":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the terminal back."""
        if self.live:
            self.live.stop()

    def say(self, stage: str, text: str) -> None:
        """Something for good: a stage has begun, ended or failed."""
        if self.silent:
            return
        with self.lock:
            print(f"{stage:<{self.width}}  {text}", flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator["Board"]:
        """A stage at work: says when it is done, and in which time."""
        started = time.monotonic()
        self.at_work[name] = "begins"
        try:
            yield self
            self.say(name, f"done in {time.monotonic() - started:.1f} s")
        finally:
            self.at_work.pop(name, None)

    def line(self, stage: str, text: str) -> None:
        """What a stage has printed; DVC's advice to people who run it by hand is left out."""
        if not text.strip() or text.startswith(NOISE_PREFIXES):
            return
        text = text.removeprefix(f"{stage.replace('@', ' ')}: ")
        self.at_work[stage] = text
        if not self.live:
            self.say(stage, text)

    def _render(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for stage, text in list(self.at_work.items()):
            grid.add_row(Spinner("dots"), Text(f"{stage:<{self.width}}", style="bold"), Text(text, overflow="ellipsis"))
        return grid
