"""One finding of `recursight doctor`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fix"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: of which it is, such as `data`.
        state: `ok`; `note`: works, but good to know; `fix`: something fails, or will.
        what: was found, in a sentence or less.
        commands: that fix it, to be given in this order in the project's folder.
    """

    area: str
    state: State
    what: str
    commands: tuple[str, ...] = ()


def some(items: list[str], most: int = 3) -> str:
    """The first few of a list, for a sentence."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
