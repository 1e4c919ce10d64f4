"""One finding of `recursight doctor`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fix"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        area: such as `data`.
        state: `ok`; `note`: works, but good to know; `fix`: something fails, or will.
        what: a sentence on the result.
        commands: that fix it, in this order, run in the project's folder.
    """

    area: str
    state: State
    what: str
    commands: tuple[str, ...] = ()


def some(items: list[str], most: int = 3) -> str:
    """The first few items of a list, and the number of the others."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
