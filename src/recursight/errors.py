"""The error whose message is written for users."""

import difflib
from collections.abc import Iterable

LISTED = 30  # names in a message


class InputError(ValueError):
    """Invalid input: a file, a value, a name.

    The message consists of plain sentences that say what is wrong, where, and how to fix it. Commands print it without
    a traceback and exit with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggests the most similar known name, or lists some; for the end of an error message."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(choices) - LISTED} more" * (len(choices) > LISTED)
    return f"known: {', '.join(choices[:LISTED])}{more}."
