"""Writing that is whole or absent: to a temporary name beside the target, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file or fill a folder at; it becomes `target` if the block succeeds.

    A folder that stands at `target` is moved aside first and removed last. What a killed process left is put back or
    swept away by the next one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}.", dir=target.parent))
    temporary = staging / target.name
    try:
        yield temporary
        if target.is_dir():
            target.replace(staging / "replaced")
        temporary.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Ends what a killed process began: its old folder goes back if nothing took its place."""
    for staging in target.parent.glob(f".{target.name}.*.*"):
        pid = staging.name.removeprefix(f".{target.name}.").partition(".")[0]
        if not pid.isdigit() or _runs(int(pid)):
            continue
        if (staging / "replaced").exists() and not target.exists():
            (staging / "replaced").replace(target)
        shutil.rmtree(staging, ignore_errors=True)


def _runs(pid: int) -> bool:
    import psutil  # only where something was left

    return bool(psutil.pid_exists(pid))


def write_text(target: Path, text: str) -> None:
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Keys keep their order; NaN is refused, since JSON has none."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
