"""Where a result comes from: commit, code and machine, as recorded beside it."""

import hashlib
import platform
import socket
import subprocess
from pathlib import Path


def git_commit(root: Path) -> str | None:
    """The commit of the project folder, with `-dirty` where tracked files differ from it; None outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def code_digest(*folders: Path) -> str:
    """SHA-256 over the names and contents of all Python and C++ files below some folders."""
    hashed = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".h", ".cpp")):
            hashed.update(path.relative_to(folder).as_posix().encode() + b"\0")
            hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def machine() -> dict[str, str]:
    """The machine's name, its Python and its platform."""
    return {"host": socket.gethostname(), "python": platform.python_version(), "platform": platform.platform()}
