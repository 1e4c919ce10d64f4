"""Makes text from files, archives and models safe to print and to store."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escapes what could control a terminal, and file names that are not UTF-8: ESC becomes `\\x1b`.

    Escaped are control characters, line separators, marks that reverse the direction of text, and surrogates, which
    stand for bytes outside UTF-8 in file names.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
