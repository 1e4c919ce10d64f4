"""DVC's own locks: who reads and writes which output, noted in `.dvc/tmp/rwlock`.

DVC drops the note of a dead process only where it is in the way of the next one, and knows processes by their number
alone: once another program has got that number, a stage "is busy" for as long as that one lives. A kill while DVC
writes the file leaves half of it, and DVC then refuses everything.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recursight.files import write_json
from recursight.layout import Layout
from recursight.operations.owners import is_alive

BROKEN = "half a file"


def dead_notes(layout: Layout, clear: bool) -> list[str]:
    """Whose notes are of no use: `process 123`, or BROKEN; if asked, they go."""
    folder = layout.root / ".dvc" / "tmp"
    noted = folder / "rwlock"
    with _guard(folder / "rwlock.lock") as is_ours:
        if not is_ours or not noted.exists():
            return []
        since = noted.stat().st_mtime
        try:
            kept, dead = _sorted(json.loads(noted.read_text()), since)
        except (ValueError, TypeError, KeyError, AttributeError):
            kept, dead = {}, {BROKEN}
        if clear and dead:
            write_json(noted, kept)
    return sorted(dead)


def _sorted(notes: dict[str, Any], since: float) -> tuple[dict[str, Any], set[str]]:
    """Notes of the living, and whose others there are."""
    dead: set[str] = set()

    def lives(note: dict[str, Any]) -> bool:
        if is_alive(note["pid"], since):
            return True
        dead.add(f"process {note['pid']}")
        return False

    readers = {path: [note for note in by if lives(note)] for path, by in notes.get("read", {}).items()}
    writers = {path: by for path, by in notes.get("write", {}).items() if by and lives(by)}
    return {"write": writers, "read": {path: by for path, by in readers.items() if by}}, dead


@contextmanager
def _guard(path: Path) -> Iterator[bool]:
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
