"""A folder with events.csv, which says when what happens in streams.

Columns: path (of a video or another clip, relative to the folder), start_seconds and end_seconds, or start_frame and
end_frame, label; optionally split, group and rate (frames per second of a clip without times). A start is inclusive,
an end exclusive. Times count from the first frame, frames from 0. Frames that no event covers are background. Events of
one stream do not overlap. A row with a path alone is a stream without events.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from recursight.data.readers import manifest
from recursight.data.readers.table import BadRow, columns_of, path_of, rate_of, rows, split_of
from recursight.data.records import Event, Fault, Record, Source, natural_order
from recursight.errors import InputError

NAME = "events.csv"
LOOKS_FOR = "a folder with events.csv (columns path, start_seconds, end_seconds, label; optionally split, group, rate)"
UNITS = {"seconds": ("start_seconds", "end_seconds"), "frames": ("start_frame", "end_frame")}
_OTHERS = ("path", "label", "split", "group", "rate")


def detect(folder: Path) -> bool:
    return (folder / NAME).is_file()


def read(folder: Path) -> Source:
    """Reads the whole list; what is wrong with single streams is among the records.

    Raises:
        InputError: if the list is not a CSV file with known columns, or has no events.
    """
    if manifest.detect(folder):
        raise InputError(f"{folder} has both {manifest.NAME} and {NAME}; keep the one that describes the data.")
    unit = _unit(columns_of(folder / NAME, ("path", "label")))
    streams: dict[str, list[tuple[int, dict[str, str]]]] = {}
    nameless: list[Fault] = []
    for number, row in rows(folder / NAME, ("path", "label")):
        if row["path"]:
            streams.setdefault(row["path"], []).append((number, row))
        else:
            nameless.append(Fault(f"{NAME} line {number}", "has no path."))
    with_split = any(row.get("split") for listed in streams.values() for _, row in listed)
    labels = {row["label"] for listed in streams.values() for _, row in listed} - {""}
    if not labels:
        raise InputError(f"{NAME} has no events.")

    def records() -> Iterator[Record | Fault]:
        root = folder.resolve()
        yield from nameless
        for name, listed in streams.items():
            yield from _stream(root, name, listed, unit, with_split)

    classes = tuple(sorted(labels, key=natural_order))
    return Source("events", classes, len(streams) + len(nameless), records, clips=True, unit=unit)


def _unit(columns: list[str]) -> str:
    """The unit of the times, from the names of the columns."""
    known = "path, start_seconds, end_seconds (or start_frame, end_frame), label, and if needed split, group, rate"
    for column in columns:
        if column not in (*_OTHERS, *UNITS["seconds"], *UNITS["frames"]):
            raise InputError(f"{NAME} line 1 has the unknown column {column!r}; columns are {known}.")
        if columns.count(column) > 1:
            raise InputError(f"{NAME} line 1 has the column {column!r} twice.")
    units = [unit for unit, pair in UNITS.items() if set(pair) <= set(columns)]
    if len(units) != 1 or any(
        column in columns for pair in UNITS.values() for column in pair if pair != UNITS[units[0]]
    ):
        raise InputError(f"{NAME} line 1 must state times either in seconds or in frames; columns are {known}.")
    return units[0]


def _stream(
    root: Path, name: str, listed: list[tuple[int, dict[str, str]]], unit: str, with_split: bool
) -> list[Record | Fault]:
    """A stream, or all that is wrong with it."""
    first, row = listed[0]
    place = f"{NAME} line {first}"
    faults: list[str] = []
    for number, other in listed[1:]:
        for column in ("split", "group", "rate"):
            if other.get(column) != row.get(column):
                faults.append(f"has another {column} in line {number} of {NAME} than in line {first}; it needs one.")
    events = []
    for number, each in listed:
        try:
            event = _event(number, each, unit)
            events += [event] if event else []
        except BadRow as bad:
            faults.append(str(bad))
    events.sort()
    for before, after in pairwise(events):
        if after.start < before.end:
            lines = f"{NAME} line {after.line}, with line {before.line}"
            faults.append(f"has events that overlap ({lines}): {_span(after)} and {_span(before)}.")
    try:
        split, rate, path = split_of(row, with_split, place), rate_of(row, place), path_of(name, root, place)
    except BadRow as bad:
        faults.append(str(bad))
    if faults:
        return [Fault(name, fault) for fault in faults]
    return [Record(name, "", split, row.get("group") or None, path, tuple(events), rate)]


def _event(number: int, row: dict[str, str], unit: str) -> Event | None:
    """An event; None for a row that only lists the stream.

    Raises:
        BadRow: if it has no label, or its times are impossible.
    """
    place = f"{NAME} line {number}"
    start, end = (row[column] for column in UNITS[unit])
    if not (start or end or row["label"]):
        return None
    if not row["label"]:
        raise BadRow(f"has an event without a label ({place}).")
    convert = float if unit == "seconds" else int
    try:
        event = Event(convert(start), convert(end), row["label"], number)
    except ValueError:
        what = "numbers of seconds" if unit == "seconds" else "whole numbers of frames"
        raise BadRow(f"has an event from {start!r} to {end!r} ({place}); both must be {what}.") from None
    if not (math.isfinite(event.start) and math.isfinite(event.end)) or event.start < 0:
        raise BadRow(f"has an event from {start} to {end} ({place}); times begin with 0 at the first frame.")
    if event.start >= event.end:
        raise BadRow(f"has an event that starts at {start} and ends at {end} ({place}); the end must be later.")
    return event


def _span(event: Event) -> str:
    return f"{event.label} from {event.start:g} to {event.end:g}"
