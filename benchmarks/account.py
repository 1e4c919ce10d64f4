"""Where figures come from: commit and machine."""

import os
import platform
import subprocess
from pathlib import Path


def commit(folder: Path = Path(__file__).parent) -> str:
    """The one that is checked out, with `-dirty` behind it where files differ."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    """Processors, their model, and the version of Python."""
    return f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
