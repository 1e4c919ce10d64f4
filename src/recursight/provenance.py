"""Provenance of a result: commit, code and machine, recorded with it."""

import hashlib
import platform
import socket
from pathlib import Path

from recursight.commands import git

SOURCES = {".py", ".cpp", ".h", ".cu"}


def git_commit(root: Path) -> str | None:
    """Commit of the project folder, with `-dirty` if tracked files have changed; None outside git.

    dvc.lock does not count: stages write it, and no result depends on it.
    """
    commit = git(root, "rev-parse", "--verify", "HEAD", timeout_seconds=10)
    if commit.returncode:
        return None
    changed = git(root, "diff", "--quiet", "HEAD", "--", ":(top)", ":(exclude)dvc.lock", timeout_seconds=10)
    return commit.stdout.strip() + "-dirty" * bool(changed.returncode)


def code_digest(*places: Path) -> str:
    """SHA-256 over the names and contents of source files: single ones and all below folders, native code included."""
    hashed = hashlib.sha256()
    for place in places:
        found = place.rglob("*") if place.is_dir() else [place]
        for path in sorted(path for path in found if path.suffix in SOURCES):
            hashed.update(path.relative_to(place).as_posix().encode() + b"\0")
            hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def machine() -> dict[str, str]:
    """Host name, Python version and platform."""
    return {"host": socket.gethostname(), "python": platform.python_version(), "platform": platform.platform()}
