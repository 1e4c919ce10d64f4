"""What DVC leaves behind when it is killed: its table of locks, `.dvc/tmp/rwlock`, half a dvc.lock, and half copies.

The table lists which process reads and writes which output. DVC removes the entry of an ended process only when it
meets it, and identifies processes by pid alone: once another program has that pid, a stage "is busy" for as long as
that program runs. DVC writes both files in place. A kill during that leaves half a file, and DVC then refuses every
command.
"""

import fcntl
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recursight import commands
from recursight.errors import InputError
from recursight.files import LARGEST_YAML_BYTES, MOST_LOCK_VALUES, read_yaml, write_json
from recursight.layout import Layout
from recursight.processes import is_alive_since

BROKEN = "half a file"
COPY = re.compile(r"\.[\w-]{22}\.tmp")  # beside its target; dvc_objects draws the letters


def stale_notes(layout: Layout, clear: bool) -> list[str]:
    """The processes of stale entries, as `process 123`, or BROKEN; `clear` removes these entries."""
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
    """Splits the table into the entries of running processes, and the names of the other processes."""
    stale: set[str] = set()

    def is_alive(note: dict[str, Any]) -> bool:
        if is_alive_since(note["pid"], since):
            return True
        stale.add(f"process {note['pid']}")
        return False

    readers = {path: [note for note in by if is_alive(note)] for path, by in notes.get("read", {}).items()}
    writers = {path: by for path, by in notes.get("write", {}).items() if by and is_alive(by)}
    return {"write": writers, "read": {path: by for path, by in readers.items() if by}}, stale


def broken_results(layout: Layout, clear: bool) -> bool:
    """Whether dvc.lock is half written, as DVC leaves it if it is killed or its disk is full; `clear` restores it.

    The committed dvc.lock is restored, or none. Results that are newer are not lost: DVC finds them in its run cache.
    """
    results = layout.root / "dvc.lock"
    with _own_lock(layout.root / ".dvc" / "tmp" / "lock") as is_ours:
        if not is_ours or not results.exists() or results.stat().st_size > LARGEST_YAML_BYTES:
            return False
        with suppress(InputError):
            content = read_yaml(results, MOST_LOCK_VALUES)
            if isinstance(content, dict) and "schema" in content:
                return False
        if clear and commands.git(layout.root, "checkout", "--quiet", "--", results.name).returncode:
            results.unlink()
    return True


def half_copies(layout: Layout, folders: Iterable[Path], clear: bool) -> list[Path]:
    """Copies out of DVC's cache that were begun in these folders, and never finished; `clear` removes them.

    DVC copies only while it holds its lock.
    """
    with _own_lock(layout.root / ".dvc" / "tmp" / "lock") as is_ours:
        begun = [path for folder in folders for path in folder.glob(".*.tmp") if is_ours and COPY.fullmatch(path.name)]
        for path in begun if clear else []:
            path.unlink(missing_ok=True)
    return begun


@contextmanager
def _own_lock(path: Path) -> Iterator[bool]:
    """Takes one of DVC's locks; yields False if it is taken, or if DVC has not run here yet."""
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
