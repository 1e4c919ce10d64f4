"""Runs other programs, and waits for them."""

import os
import subprocess
import sys
from pathlib import Path

DVC = [sys.executable, "-m", "dvc"]
Finished = subprocess.CompletedProcess[str]


def dvc(root: Path, *words: str, timeout_seconds: float | None = None) -> Finished:
    """Runs the DVC of this Python environment in a project."""
    return run([*DVC, *words], root, environment(), timeout_seconds)


def git(root: Path, *words: str, timeout_seconds: float | None = None) -> Finished:
    """Runs git in a project; it never asks for a password."""
    return run(["git", "-c", "core.askPass=true", *words], root, None, timeout_seconds)


def environment() -> dict[str, str]:
    """The environment for DVC: the programs of this Python first in PATH, and no usage statistics."""
    programs = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}", "DVC_NO_ANALYTICS": "1"}


def message_of(finished: Finished) -> str:
    """The output of a failed command, in one line."""
    text = finished.stderr.strip() or finished.stdout.strip()
    return " ".join(text.removeprefix("ERROR: ").split()) or "it printed nothing"


def run(
    command: list[str], root: Path, environment: dict[str, str] | None = None, timeout_seconds: float | None = None
) -> Finished:
    """Runs a program without input; exit status 1 if it takes too long, 127 if it is not installed."""
    try:
        return subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        return Finished(command, 1, "", f"no answer in {timeout_seconds:.0f} s")
    except OSError as error:
        return Finished(command, 127, "", str(error))
