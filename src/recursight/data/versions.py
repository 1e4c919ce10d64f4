"""data/ and its version: nothing replaces what could not be restored, and data.dvc always pins what lies there."""

import json
import re
import shutil
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from recursight import commands
from recursight.errors import InputError
from recursight.layout import Layout

EMBEDDED = "embedded"


def require_restorable(layout: Layout) -> None:
    """Makes sure that git and DVC hold the present content of data/.

    Raises:
        InputError: if they do not, with what to do.
    """
    give_up = "or give that version up with --force."
    if _is_uncommitted(layout):
        raise InputError(f"data.dvc is not committed: `git add data.dvc && git commit -m ...` first, {give_up}")
    if not layout.data.exists():
        return
    if not layout.data_dvc.exists():
        raise InputError(f"data/ is pinned by no data.dvc: `dvc add data` and commit data.dvc first, {give_up}")
    state = str(json.loads(_dvc(layout, "status", "--json", "data.dvc") or "{}"))
    if "not in cache" in state:
        _dvc(layout, "commit", "--force", "data.dvc")
    elif state != "{}":
        raise InputError(f"data/ is not what data.dvc pins: `dvc add data` and commit data.dvc first, {give_up}")


def replace_data(layout: Layout, new: Path, previous: Path) -> None:
    """Puts a folder in the place of data/ and pins it; if pinning fails, all is as before.

    Args:
        layout: of the project.
        new: the folder; on the same file system as data/.
        previous: where the old data/ stands meanwhile; it must not exist, and does not afterwards.

    Raises:
        InputError: with what DVC says.
    """
    pinned = layout.data_dvc.read_bytes() if layout.data_dvc.exists() else None
    if layout.data.exists():
        layout.data.rename(previous)
    try:
        new.rename(layout.data)
        pin(layout)
    except BaseException:
        if layout.data.exists():
            layout.data.rename(new)
        if previous.exists():
            previous.rename(layout.data)
        if pinned is None:
            layout.data_dvc.unlink(missing_ok=True)
        else:
            layout.data_dvc.write_bytes(pinned)
        raise
    shutil.rmtree(previous, ignore_errors=True)


class Workshop:
    """A folder to make a new data/ in; one at a time, and what a killed import left is put right first."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folder = layout.state / "import"
        self.new = self.folder / "new"
        self.previous = self.folder / "previous"
        self._lock = FileLock(layout.lock("import"))

    def __enter__(self) -> "Workshop":
        self.layout.lock("import").parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError("another import is running in this project; wait for it to end.") from None
        if self.previous.exists() and not self.layout.data.exists():
            self.previous.rename(self.layout.data)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def pin(layout: Layout) -> None:
    """`dvc add data`. The embedded remote holds the digits; data that it does not hold must never be pushed there."""
    if layout.data_dvc.exists():
        text = layout.data_dvc.read_text(encoding="utf-8")
        layout.data_dvc.write_text(re.sub(rf"(?m)^\s+remote: {EMBEDDED}\n?", "", text), encoding="utf-8")
    _dvc(layout, "add", "data")
    text = layout.data_dvc.read_text(encoding="utf-8")
    md5 = yaml.safe_load(text)["outs"][0]["md5"]
    if (layout.root / EMBEDDED / "files" / "md5" / md5[:2] / md5[2:]).exists():
        layout.data_dvc.write_text(f"{text.rstrip()}\n  remote: {EMBEDDED}\n", encoding="utf-8")


def fetch(layout: Layout) -> None:
    """`dvc fetch data.dvc`; DVC takes it lightly if the remote lacks something."""
    _dvc(layout, "fetch", "--quiet", "data.dvc")


def checkout(layout: Layout) -> None:
    """data/ becomes what data.dvc pins. Files that DVC does not hold are never overwritten.

    Raises:
        InputError: with what DVC says.
    """
    _dvc(layout, "checkout", "--quiet", "data.dvc")


def _is_uncommitted(layout: Layout) -> bool:
    """Whether data.dvc exists and git does not hold it as it is; no where there is no git."""
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
