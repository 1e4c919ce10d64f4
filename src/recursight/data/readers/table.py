"""What lists of files in CSV have in common: rows, and paths that stay inside the folder."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from recursight.data.records import SPLIT_NAMES, leaves
from recursight.errors import InputError, nearest


class BadRow(Exception):
    """A row cannot be used; the message says why and names the line, without naming the file."""


def columns_of(path: Path, required: Sequence[str]) -> list[str]:
    """The names of the columns.

    Raises:
        InputError: if it is not a CSV file with the required columns.
    """
    return next(_lines(path, required))


def rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the line and values by column of each row, stripped; missing ones are empty.

    Raises:
        InputError: if it is not a CSV file with the required columns.
    """
    lines = _lines(path, required)
    columns = next(lines)
    for number, values in enumerate(lines, start=2):  # the header is line 1
        yield number, dict.fromkeys(columns, "") | dict(zip(columns, map(str.strip, values), strict=False))


def _lines(path: Path, required: Sequence[str]) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, [])
            for column in required:
                if column not in columns:
                    close = nearest(column, columns) if columns else "it is empty."
                    raise InputError(f"{path.name} has no column {column!r}; {close}")
            yield columns
            yield from filter(None, reader)
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8; save it as UTF-8.") from None
    except csv.Error as error:
        raise InputError(f"{path.name} is not valid CSV: {error}.") from None


def split_of(row: dict[str, str], with_split: bool, place: str) -> str | None:
    """The split of a row.

    Raises:
        BadRow: if it is unknown, or missing although others have one.
    """
    given = row.get("split", "")
    split = SPLIT_NAMES.get(given.lower()) if given else None
    if with_split and split is None:
        what = f"has split {given!r}" if given else "has no split, although others have one"
        raise BadRow(f"{what} ({place}); known: {', '.join(SPLIT_NAMES)}.")
    return split


def rate_of(row: dict[str, str], place: str) -> float | None:
    """Frames per second that a row states for a clip without times.

    Raises:
        BadRow: if it is not a possible number.
    """
    given = row.get("rate", "")
    try:
        rate = float(given) if given else None
    except ValueError:
        rate = -1.0
    if rate is not None and not 0 < rate <= 1000:
        raise BadRow(f"has the rate {given!r} ({place}); it must be frames per second, above 0.")
    return rate


def path_of(name: str, root: Path, place: str) -> Path:
    """A listed file or folder, relative to the root (resolved).

    Raises:
        BadRow: if it is missing or outside.
    """
    try:
        path = root / name
        outside = Path(name).is_absolute() or ".." in Path(name).parts or leaves(path, root)
    except (OSError, ValueError, RuntimeError):  # a null character, or a loop of links
        raise BadRow(f"is not a valid path ({place}).") from None
    if outside:
        raise BadRow(f"is outside the folder ({place}).")
    if not path.exists():
        raise BadRow(f"is listed but missing ({place}).")
    return path
