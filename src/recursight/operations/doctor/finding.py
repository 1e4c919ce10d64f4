"""What an examination finds."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: of which it is, such as `data`.
        state: `ok`; `note`: works, but good to know; `mend`: something will fail.
        what: was found, in a sentence or less.
        commands: that mend it, to be given in this order in the project's folder.
    """

    area: str
    state: State
    what: str
    commands: tuple[str, ...] = ()


def some(items: list[str], most: int = 3) -> str:
    """The first few of a list, for a sentence."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
