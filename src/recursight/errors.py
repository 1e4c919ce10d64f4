"""The one kind of error that people are meant to read."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something outside the program is wrong: a file, a value, a name.

    The message is one or more plain sentences: what is wrong, where, and how to mend it. Commands print it without
    a traceback and end with exit status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which known name is meant, for the end of an error sentence."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(choices)}."
