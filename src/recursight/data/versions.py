"""data/ and its version: data/ is replaced only if it can be restored, and data.dvc pins what is in it."""

import json
import os
import re
import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from recursight import commands, files, processes
from recursight.errors import InputError
from recursight.layout import Layout

EMBEDDED = "embedded"
IMPORT_OF = "RECURSIGHT_IMPORT_OF"  # in the environment of the DVC processes that an import starts: its project


def require_restorable(layout: Layout) -> None:
    """Checks that git and DVC hold the current content of data/.

    Raises:
        InputError: if they do not, with what to do.
    """
    give_up = "or discard that version with --force."
    if _is_uncommitted(layout):
        raise InputError(f"data.dvc is not committed: `git add data.dvc && git commit -m ...` first, {give_up}")
    if not layout.data.exists():
        return
    if not layout.data_dvc.exists():
        raise InputError(f"data/ has no data.dvc: `dvc add data` and commit data.dvc first, {give_up}")
    state = str(json.loads(_dvc(layout, "status", "--json", "data.dvc") or "{}"))
    if "not in cache" in state:
        _dvc(layout, "commit", "--force", "data.dvc")
    elif state != "{}":
        raise InputError(f"data/ is not what data.dvc pins: `dvc add data` and commit data.dvc first, {give_up}")


class Workshop:
    """A folder in which one process at a time makes a new data/. Entering it undoes what a killed import began.

    A swap is recorded before it begins, and the record is removed when data.dvc pins the new data. While the record
    exists, the swap is undone: by `__exit__` after an error, or by the next Workshop after a kill.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folder = layout.state / "import"
        self.new = self.folder / "new"
        self._previous = self.folder / "previous"
        self._record = self.folder / "swap.json"
        self._lock = FileLock(layout.lock("import"))

    def __enter__(self) -> "Workshop":
        self.layout.lock("import").parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError("another import is running in this project; wait for it to end.") from None
        self._undo()
        self.folder.mkdir(parents=True)
        os.environ[IMPORT_OF] = str(self.layout.root)
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(IMPORT_OF, None)
        self._undo()
        self._lock.release()

    def swap(self) -> None:
        """Replaces data/ by `new` and pins it.

        Raises:
            InputError: if DVC fails, with its message. Leaving the Workshop then restores data/ and data.dvc.
        """
        pinned = self.layout.data_dvc.read_text(encoding="utf-8") if self.layout.data_dvc.exists() else None
        files.write_json(self._record, {"data_dvc": pinned, "had_data": self.layout.data.exists()})
        if self.layout.data.exists():
            self.layout.data.rename(self._previous)
        self.new.rename(self.layout.data)
        pin(self.layout)
        self._record.unlink()

    def _undo(self) -> None:
        """Restores data/ and data.dvc if a swap was begun and not finished; a kill during this loses nothing either."""
        if self._record.exists():
            record = files.read_json(self._record)
            processes.end(processes.carrying({IMPORT_OF: str(self.layout.root)}))  # `dvc add`, orphaned
            swapped = self._previous.exists() if record["had_data"] else not self.new.exists()
            if swapped and self.layout.data.exists():
                self.layout.data.rename(self.folder / f"undone-{time.time_ns()}")
            if self._previous.exists():
                self._previous.rename(self.layout.data)
            if record["data_dvc"] is None:
                self.layout.data_dvc.unlink(missing_ok=True)
            else:
                files.write_text(self.layout.data_dvc, record["data_dvc"])
            self._record.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def pin(layout: Layout) -> None:
    """Runs `dvc add data`, and names the embedded remote in data.dvc only if it holds this data.

    Raises:
        InputError: if DVC fails, or its cache has no room for the data.
    """
    if layout.data_dvc.exists():  # first: other data must never be pushed to the embedded remote
        text = layout.data_dvc.read_text(encoding="utf-8")
        files.write_text(layout.data_dvc, re.sub(rf"(?m)^\s+remote: {EMBEDDED}\n?", "", text))
    _dvc(layout, "add", "data")
    if not complete_cache(layout.root, str(layout.data_dvc)):
        raise InputError("DVC's cache could not store data/; free some space on its disk.")
    md5 = files.read_yaml(layout.data_dvc)["outs"][0]["md5"]
    if (layout.root / EMBEDDED / "files" / "md5" / md5[:2] / md5[2:]).exists():
        text = layout.data_dvc.read_text(encoding="utf-8")
        files.write_text(layout.data_dvc, f"{text.rstrip()}\n  remote: {EMBEDDED}\n")


def complete_cache(root: Path, target: str) -> bool:
    """Copies unchanged outputs into DVC's cache that are missing there.

    If a disk is full, DVC only logs that it could not copy an output to its cache, and records it all the same.

    Args:
        root: of the project.
        target: a stage, from the folder of the project, or the path of a .dvc file.

    Returns:
        Whether the cache now has all outputs that are as DVC recorded them.
    """
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        outputs = [output for stage in repo.stage.collect(target) for output in stage.outs if output.use_cache]
        missing = [output for output in outputs if output.exists and output.hash_info and output.changed_cache()]
        unchanged = [output for output in missing if not output.changed_checksum()]
        for output in unchanged:
            output.commit(relink=False)
        return not any(output.changed_cache() for output in unchanged)


def require_genuine(layout: Layout) -> None:
    """Checks the content of data/ against data.dvc, by MD5 of every file, unless DVC knows that data/ has changed.

    DVC does not hash files that it wrote itself, so it does not notice if the remote or the cache was tampered with.

    Raises:
        InputError: if data/ is not what data.dvc pins although DVC says so.
    """
    from dvc.repo import Repo
    from dvc_data.hashfile.state import StateNoop

    if not layout.data.exists() or not layout.data_dvc.exists() or not (layout.root / ".dvc").is_dir():
        return
    with Repo(str(layout.root)) as repo:
        output = repo.stage.load_one(str(layout.data_dvc)).outs[0]
        if output.changed_checksum():
            return
        output.cache.state = StateNoop()  # the hashes that DVC remembers
        actual = output.get_hash().value
    if actual != output.hash_info.value:
        raise InputError(
            f"data/ is {actual}, but data.dvc pins {output.hash_info.value}: files were changed in the remote or in "
            "DVC's cache. Move data/ and .dvc/cache away, then `dvc pull data.dvc` from a remote that you trust."
        )


def fetch(layout: Layout) -> None:
    """Runs `dvc fetch data.dvc`, which succeeds even if the remote lacks some files."""
    _dvc(layout, "fetch", "--quiet", "data.dvc")


def checkout(layout: Layout) -> None:
    """Makes data/ what data.dvc pins. Files that DVC does not hold are never overwritten.

    Raises:
        InputError: if DVC fails, with its message.
    """
    _dvc(layout, "checkout", "--quiet", "data.dvc")


def _is_uncommitted(layout: Layout) -> bool:
    """Whether data.dvc differs from the last commit; False outside git."""
    if not layout.data_dvc.exists():
        return False
    status = commands.git(layout.root, "status", "--porcelain", "--", "data.dvc")
    return status.returncode == 0 and bool(status.stdout.strip())


def _dvc(layout: Layout, *words: str) -> str:
    """Runs DVC in the project and returns what it prints."""
    finished = commands.dvc(layout.root, *words)
    if finished.returncode != 0:
        raise InputError(f"`dvc {' '.join(words)}` failed: {commands.message_of(finished)}")
    return finished.stdout.strip()
