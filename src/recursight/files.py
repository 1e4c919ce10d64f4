"""Atomic writes: to a temporary name beside the target, which is then renamed."""

import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recursight.errors import InputError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

STAGING = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)\.[a-z0-9_]{8}"
)  # a target's name, a process, and tempfile's letters


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path for a file or folder, which is renamed to `target` if the block succeeds.

    An existing folder at `target` is first moved aside and removed at the end. The next call for the same target
    recovers from a killed one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in list(left_behind(target.parent, target.name)):
        recover(leftover)
    staging = Path(tempfile.mkdtemp(prefix=staging_prefix(target.name), dir=target.parent))
    temporary = staging / target.name
    try:
        yield temporary
        if target.is_dir():
            target.replace(staging / "replaced")
        temporary.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def left_behind(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Temporary folders of processes that have ended.

    Args:
        folder: contains the targets.
        name: name of the target; None for all targets.
    """
    for staging in folder.glob(f".{glob.escape(name)}.*" if name else ".*"):
        parts = STAGING.fullmatch(staging.name)
        if parts and name in (None, parts["name"]) and not _may_live(int(parts["pid"]), staging):
            yield staging


def staging_prefix(name: str) -> str:
    """The beginning of the name of a temporary folder that `left_behind` finds if this process is killed."""
    return f".{name}.{os.getpid()}."


def target_of(staging: Path) -> Path:
    """What a temporary folder was made for."""
    parts = STAGING.fullmatch(staging.name)
    assert parts
    return staging.parent / parts["name"]


def recover(staging: Path) -> None:
    """Removes a temporary folder; the old folder is restored from it if no new one replaced it."""
    target = target_of(staging)
    with suppress(FileNotFoundError):  # another process recovered it
        if (staging / "replaced").exists() and not target.exists():
            (staging / "replaced").replace(target)
    shutil.rmtree(staging, ignore_errors=True)


def _may_live(pid: int, staging: Path) -> bool:
    """Whether the process that made a folder may still be alive."""
    from recursight.processes import is_alive_since  # not imported unless something was left

    with suppress(FileNotFoundError):
        return is_alive_since(pid, staging.stat().st_ctime)
    return False


def write_text(target: Path, text: str) -> None:
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes JSON with keys in their order; raises ValueError for NaN, which JSON cannot represent."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


LARGEST_YAML_BYTES = 10_000_000
MOST_YAML_VALUES = 100_000
MOST_LOCK_VALUES = 5_000_000  # of dvc.lock, which grows with the stages


def read_yaml(path: Path, most_values: int = MOST_YAML_VALUES) -> Any:
    """Reads a YAML 1.2 file with the parser that DVC uses, so that both read the same values.

    Args:
        path: of the file.
        most_values: in the file, with all aliases filled in.

    Raises:
        FileNotFoundError: if there is none.
        InputError: if it is not YAML in UTF-8, defines a key twice, or is too large with all aliases filled in.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if path.stat().st_size > LARGEST_YAML_BYTES:
        raise InputError(f"{path.name} has more than {LARGEST_YAML_BYTES:,} bytes; it is not read.")
    try:
        text = path.read_bytes().decode("utf-8")
        too_many = _values(YAML(typ="safe").compose(text), {}) > most_values
        content = None if too_many else YAML(typ="safe").load(text)
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not text in UTF-8; save it in that encoding.") from None
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply.") from None
    except (YAMLError, ValueError) as error:  # ValueError: such as a date that does not exist
        raise InputError(f"{path.name} is not valid YAML: {_plain_reason(error)}.") from None
    if too_many:
        raise InputError(f"{path.name} has more than {most_values:,} values once its aliases are filled in.")
    return content


def write_yaml(target: Path, value: Any) -> None:
    """Writes YAML 1.2, with keys in their order."""
    from ruamel.yaml import YAML

    with replacing(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        YAML().dump(value, stream)


def _values(node: "Node | None", known: dict[int, int]) -> int:
    """The number of values of a YAML node with its aliases filled in; `known` has those of all nodes, by their ids."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = sys.maxsize  # kept if the node contains itself
        content = node.value if isinstance(node.value, list) else []
        children = [child for entry in content for child in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def _plain_reason(error: Exception) -> str:
    """The parser's error and its position, without advice for programmers."""
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{' '.join(str(problem).split())}{place}"


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
