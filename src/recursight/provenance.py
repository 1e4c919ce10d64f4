"""Where a result comes from: commit, code and machine, as recorded beside it."""

import hashlib
import platform
import socket
from pathlib import Path

from recursight.commands import git

SOURCES = {".py", ".cpp", ".h", ".cu"}


def git_commit(root: Path) -> str | None:
    """The commit of the project folder, with `-dirty` where tracked files differ from it; None outside git."""
    described = git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", timeout_seconds=10)
    return None if described.returncode else described.stdout.strip()


def code_digest(*folders: Path) -> str:
    """SHA-256 over the names and contents of all source files below some folders, native ones too."""
    hashed = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCES):
            hashed.update(path.relative_to(folder).as_posix().encode() + b"\0")
            hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def machine() -> dict[str, str]:
    """The machine's name, its Python and its platform."""
    return {"host": socket.gethostname(), "python": platform.python_version(), "platform": platform.platform()}
