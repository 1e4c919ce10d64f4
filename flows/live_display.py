"""The live display: shows at the terminal what each stage of a running pipeline is doing."""

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


class LiveDisplay:
    """Plain lines, each beginning with the name of its stage.

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

    def __enter__(self) -> "LiveDisplay":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restores the terminal."""
        if self.live:
            self.live.stop()

    def print_line(self, stage: str, text: str) -> None:
        """Prints a permanent line: a stage has started, ended or failed."""
        if self.silent:
            return
        with self.lock:
            print(f"{stage:<{self.width}}  {text}", flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator["LiveDisplay"]:
        """Shows a stage while it runs, then prints how long it took."""
        started = time.monotonic()
        self.at_work[name] = "starts"
        try:
            yield self
            self.print_line(name, f"done in {time.monotonic() - started:.1f} s")
        finally:
            self.at_work.pop(name, None)

    def update(self, stage: str, text: str) -> None:
        """Shows what a stage printed, without DVC's advice for people who run it by hand."""
        if not text.strip() or text.startswith(NOISE_PREFIXES):
            return
        text = text.removeprefix(f"{stage.replace('@', ' ')}: ")
        self.at_work[stage] = text
        if not self.live:
            self.print_line(stage, text)

    def _render(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for stage, text in list(self.at_work.items()):
            grid.add_row(Spinner("dots"), Text(f"{stage:<{self.width}}", style="bold"), Text(text, overflow="ellipsis"))
        return grid
