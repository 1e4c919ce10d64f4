"""Writing that is whole or absent: to a temporary name beside the target, then renamed."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STAGING = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)\.[a-z0-9_]{8}"
)  # a target's name, a process, and tempfile's letters


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file or fill a folder at; it becomes `target` if the block succeeds.

    A folder that stands at `target` is moved aside first and removed last. What a killed process left is put back or
    removed by the next one.
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
    """Ends what killed processes began at a target."""
    for staging in list(left_behind(target.parent, target.name)):
        recover(staging)


def left_behind(folder: Path, name: str | None = None) -> Iterator[Path]:
    """What `replacing` began in a folder, in processes that are gone.

    Args:
        folder: in which targets lie.
        name: of one target; by default, of any.
    """
    for staging in folder.glob(f".{glob.escape(name)}.*" if name else ".*"):
        parts = STAGING.fullmatch(staging.name)
        if parts and name in (None, parts["name"]) and not _may_live(int(parts["pid"]), staging):
            yield staging


def recover(staging: Path) -> None:
    """Removes what a process left; the old folder goes back if nothing took its place."""
    parts = STAGING.fullmatch(staging.name)
    assert parts
    target = staging.parent / parts["name"]
    with suppress(FileNotFoundError):  # somebody else was faster
        if (staging / "replaced").exists() and not target.exists():
            (staging / "replaced").replace(target)
    shutil.rmtree(staging, ignore_errors=True)


def _may_live(pid: int, staging: Path) -> bool:
    """Whether the process that made a folder may still be alive."""
    from recursight.processes import is_alive_since  # only where something was left

    with suppress(FileNotFoundError):
        return is_alive_since(pid, staging.stat().st_ctime)
    return False


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
