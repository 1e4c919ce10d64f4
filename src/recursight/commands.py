"""Runs `dvc` and `git`."""

import os
import subprocess
import sys
from pathlib import Path

DVC = [sys.executable, "-m", "dvc"]
Finished = subprocess.CompletedProcess[str]


def dvc(root: Path, *words: str, timeout_seconds: float | None = None) -> Finished:
    """Runs the DVC of this Python environment in a project, and waits for it."""
    return _run([*DVC, *words], root, environment(), timeout_seconds)


def git(root: Path, *words: str, timeout_seconds: float | None = None) -> Finished:
    """Runs git in a project, and waits for it; it never asks for a password."""
    return _run(["git", "-c", "core.askPass=true", *words], root, None, timeout_seconds)


def environment() -> dict[str, str]:
    """For DVC: the programs beside this Python first, activated or not, and no usage statistics."""
    programs = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}", "DVC_NO_ANALYTICS": "1"}


def message_of(finished: Finished) -> str:
    """What a failed command printed, in one line."""
    text = finished.stderr.strip() or finished.stdout.strip()
    return " ".join(text.removeprefix("ERROR: ").split()) or "it printed nothing"


def _run(command: list[str], root: Path, environment: dict[str, str] | None, timeout_seconds: float | None) -> Finished:
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
    except OSError as error:  # not installed
        return Finished(command, 127, "", str(error))
