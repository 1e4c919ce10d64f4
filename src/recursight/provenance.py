"""Where a result comes from: commit, code and machine, as recorded beside it."""

import hashlib
import platform
import socket
import subprocess
from pathlib import Path

SOURCES = {".py", ".cpp", ".h", ".cu"}


def git_commit(root: Path) -> str | None:
    """The commit of the project folder, with `-dirty` where tracked files differ from it; None outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def code_digest(*places: Path) -> str:
    """SHA-256 over the names and contents of source files: single ones, and all below folders, native ones too."""
    hashed = hashlib.sha256()
    for place in places:
        found = place.rglob("*") if place.is_dir() else [place]
        for path in sorted(path for path in found if path.suffix in SOURCES):
            hashed.update(path.relative_to(place).as_posix().encode() + b"\0")
            hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def machine() -> dict[str, str]:
    """The machine's name, its Python and its platform."""
    return {"host": socket.gethostname(), "python": platform.python_version(), "platform": platform.platform()}
