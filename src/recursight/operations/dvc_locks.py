"""DVC's own locks: which process reads and writes which output, noted in `.dvc/tmp/rwlock`.

DVC drops the note of an ended process only where it is in the way, and knows processes by their number alone: once
another program has that number, a stage "is busy" for as long as that program runs. A kill while DVC writes the file
leaves half of it, and DVC then refuses everything.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recursight.files import write_json
from recursight.layout import Layout
from recursight.processes import is_alive_since

BROKEN = "half a file"


def stale_notes(layout: Layout, clear: bool) -> list[str]:
    """The processes of stale notes, as `process 123`, or BROKEN; `clear` removes these notes."""
    folder = layout.root / ".dvc" / "tmp"
    noted = folder / "rwlock"
    with _own_lock(folder / "rwlock.lock") as is_ours:
        if not is_ours or not noted.exists():
            return []
        since = noted.stat().st_mtime
        try:
            kept, stale = _sorted(json.loads(noted.read_text()), since)
        except (ValueError, TypeError, KeyError, AttributeError):
            kept, stale = {}, {BROKEN}
        if clear and stale:
            write_json(noted, kept)
    return sorted(stale)


def _sorted(notes: dict[str, Any], since: float) -> tuple[dict[str, Any], set[str]]:
    """Notes of running processes, and the processes of the others."""
    stale: set[str] = set()

    def is_alive(note: dict[str, Any]) -> bool:
        if is_alive_since(note["pid"], since):
            return True
        stale.add(f"process {note['pid']}")
        return False

    readers = {path: [note for note in by if is_alive(note)] for path, by in notes.get("read", {}).items()}
    writers = {path: by for path, by in notes.get("write", {}).items() if by and is_alive(by)}
    return {"write": writers, "read": {path: by for path, by in readers.items() if by}}, stale


@contextmanager
def _own_lock(path: Path) -> Iterator[bool]:
    """DVC's lock of that file, if it is free and DVC has ever worked here."""
    if not path.parent.is_dir():
        yield False
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
