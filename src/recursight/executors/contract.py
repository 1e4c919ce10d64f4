"""What an executor does, and how a stage can end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from recursight.errors import InputError


class StageFailed(RuntimeError):
    """A stage ended with an error that may be temporary: killed, out of memory, a full disk."""


class StageRefused(InputError):
    """A stage refused its input; running it again would not help."""


class Executor(Protocol):
    """Runs stages of dvc.yaml, several at a time."""

    def run(self, root: Path, stage: str, *, timeout_seconds: float) -> Iterator[str]:
        """Runs one stage, if it has changed, and yields what it prints, line by line. Closing the generator ends it.

        Raises:
            StageRefused: if the stage found its input wrong.
            StageFailed: if it ended with another error, or took longer than the timeout.
        """
        ...

    def end_all(self, grace_seconds: float) -> None:
        """Ends all running stages, by force after a grace period, and returns when all have ended."""
        ...
