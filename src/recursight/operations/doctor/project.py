"""Checks of the project: params.yaml, git, data/, stages, DVC's remote and disks."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recursight import commands
from recursight.data.versions import EMBEDDED, require_genuine
from recursight.errors import InputError
from recursight.files import read_yaml
from recursight.layout import Layout
from recursight.operations.doctor.finding import Finding, some
from recursight.operations.doctor.software import edit
from recursight.params import load

LEAST_FREE_BYTES = 2**30
LIMIT_SECONDS = 60.0
BUSY = ("is busy", "Unable to acquire lock")  # in DVC's messages
WRITTEN_BY_DVC = ("dvc.lock", "data.dvc")
DECLARED = (*WRITTEN_BY_DVC, "dvc.yaml", "params.yaml")


def params(layout: Layout) -> Iterator[Finding]:
    try:
        count = len(load(layout.params).candidates)
    except InputError as error:
        for line in str(error).splitlines():
            yield Finding("params", "fix", line, (edit(layout),))
        return
    yield Finding("params", "ok", f"params.yaml is valid: {count} candidate{'s' * (count > 1)}")


def git(layout: Layout) -> Iterator[Finding]:
    """Whether the files that results depend on are committed."""
    if not shutil.which("git"):
        yield Finding("git", "note", "git is not installed: results have no commit")
        return
    finished = commands.git(layout.root, "status", "--porcelain", "--", *DECLARED, timeout_seconds=LIMIT_SECONDS)
    if finished.returncode:
        begin = ("git init", "git add .", 'git commit -m "As it is"')
        yield Finding("git", "note", "the project is not in git: results have no commit", begin)
        return
    changed = [line[3:] for line in finished.stdout.splitlines()]
    if changed:
        commit = (f"git add {' '.join(changed)}", 'git commit -m "New data, parameters or results"')
        yield Finding("git", "note", f"not committed: {', '.join(changed)}", commit)
    else:
        yield Finding("git", "ok", "data.dvc, dvc.lock, params.yaml and dvc.yaml are committed")


def data(layout: Layout) -> Iterator[Finding]:
    """Compares data/ with data.dvc, and the stages with their inputs. Asks DVC."""
    if not layout.data.exists():
        how = ("dvc pull data.dvc",) if layout.data_dvc.exists() else ("recursight data import digits",)
        yield Finding("data", "fix", "data/ is missing", how)
    elif not layout.data_dvc.exists():
        yield Finding("data", "fix", "data/ has no data.dvc", ("dvc add data",))
    if _is_broken(layout, "params.yaml"):  # DVC may need hours to read it
        yield Finding("data", "note", "params.yaml cannot be read: changes were not checked")
        return
    finished = commands.dvc(layout.root, "status", "--json", timeout_seconds=LIMIT_SECONDS)
    if finished.returncode and any(sign in finished.stderr for sign in BUSY):
        yield Finding("data", "note", "a stage is running: changes were not checked")
        return
    if finished.returncode:
        what = f"`dvc status` fails: {commands.message_of(finished)}"
        yield Finding("data", "fix", what, _for_dvc(layout, finished.stderr))
        return
    changes: dict[str, Any] = json.loads(finished.stdout)
    pinned = changes.pop("data.dvc", None)
    if layout.data.exists() and layout.data_dvc.exists():
        yield _agreement(str(pinned)) if pinned else Finding("data", "ok", "data/ is what data.dvc pins")
    stages = [name for name in changes if not name.endswith(".dvc")]
    if stages:
        what = "the store and what follows" if "prepare" in stages else f"{len(stages)} stages ({some(stages)})"
        yield Finding("stages", "note", f"not up to date: {what}", ("recursight pipeline",))
    else:
        yield Finding("stages", "ok", "the store and all that follows are up to date")


def content(layout: Layout) -> Iterator[Finding]:
    """Compares the content of data/ with data.dvc. Asks DVC, and reads all of data/."""
    from dvc.exceptions import DvcException

    try:
        require_genuine(layout)
    except InputError as error:
        yield Finding(
            "data", "fix", str(error), ("mv data data.changed", "mv .dvc/cache .dvc/cache.changed", "dvc pull data.dvc")
        )
    except DvcException:
        return  # reported by `data`


def remote(layout: Layout) -> Iterator[Finding]:
    """DVC's default remote, and whether it answers. Asks DVC, and the network."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(layout.root)) as repo:
            name = repo.config["core"].get("remote")
            if name in (None, EMBEDDED):
                own = ("dvc remote add --default storage ~/recursight-storage", "dvc push --run-cache")
                yield Finding("remote", "note", "no DVC remote of your own: data and results have no copy", own)
                return
            url = repo.config["remote"][name]["url"]
            store = repo.cloud.get_remote(name=name)
            reached = store.fs.exists(store.path)
            local = store.fs.protocol == "local"
            verified = bool(store.odb.verify or store.fs.version_aware)  # DVC always hashes files of the latter
    except (DvcException, OSError, KeyError, ValueError, ImportError) as error:
        yield Finding("remote", "fix", f"DVC's remote cannot be reached: {_first(error)}", _for_remote(layout, error))
        return
    if local and not reached:
        yield Finding("remote", "note", f"{name} ({url}) has nothing yet", ("dvc push --run-cache",))
    elif not verified:
        what = f"{name} ({url}) answers, but DVC does not verify what it pulls from there"
        yield Finding("remote", "note", what, (f"dvc remote modify {name} verify true",))
    else:
        yield Finding("remote", "ok", f"{name} ({url}) answers")


def disk(layout: Layout) -> Iterator[Finding]:
    """Whether the folders that commands write to are writable, and the free space on the disk of each.

    A run may write artifacts/ and DVC's cache again in full.
    """
    cache = layout.root / ".dvc" / "cache"
    disks: dict[int, list[Path]] = {}
    for folder in (layout.artifacts, cache, layout.state):
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
        if not os.access(_existing(folder), os.W_OK):
            yield _not_writable(layout, folder)
    for folders in disks.values():
        taken = sum(_size(folder) for folder in folders if folder != layout.state)
        free = shutil.disk_usage(_existing(folders[0])).free
        names = ", ".join(f"{folder.relative_to(layout.root)}/" for folder in folders)
        what = f"{_gigabytes(free)} free on the disk of {names}; artifacts and cache there take {_gigabytes(taken)}"
        if free < max(taken, LEAST_FREE_BYTES):
            yield Finding("disk", "fix", f"{what}, and a run may write as much again", ("dvc gc --workspace",))
        else:
            yield Finding("disk", "ok", what)


def _existing(folder: Path) -> Path:
    """The folder, or the parent in which it would be created."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _not_writable(layout: Layout, folder: Path) -> Finding:
    name = folder.relative_to(layout.root)
    if os.statvfs(_existing(folder)).f_flag & os.ST_RDONLY:
        return Finding("disk", "fix", f"{name}/ is on a read-only disk", (f"findmnt --target {name}",))
    return Finding("disk", "fix", f"{name}/ is not writable", (f"chmod u+w {name}",))


def _agreement(change: str) -> Finding:
    if "not in cache" in change:
        return Finding(
            "data", "fix", "data/ is what data.dvc pins, but it is not in DVC's cache", ("dvc commit --force data.dvc",)
        )
    what = "data/ is not what data.dvc pins: pin it, or restore the pinned version (`dvc checkout --force data.dvc`)"
    return Finding("data", "fix", what, ("dvc add data",))


def _for_remote(layout: Layout, error: BaseException) -> tuple[str, ...]:
    package = re.search(r"\bdvc-(s3|gs|ssh|azure|http|webdav|hdfs|oss)\b", str(error))
    if package:
        return (f"{sys.executable} -m pip install {package[0]}",)
    return _for_dvc(layout, str(error)) if "git repository" in str(error) else ("dvc remote list",)


def _for_dvc(layout: Layout, message: str) -> tuple[str, ...]:
    if not (layout.root / ".dvc").is_dir():
        return ("dvc init",) if (layout.root / ".git").exists() else ("dvc init --no-scm",)
    if "git" in message.lower() and not (layout.root / ".git").exists():
        return ("git init",)
    broken = next((name for name in DECLARED if _is_broken(layout, name)), "dvc.yaml")
    return (f"git checkout -- {broken}",) if broken in WRITTEN_BY_DVC else (f"${{EDITOR:-vi}} {broken}",)


def _is_broken(layout: Layout, name: str) -> bool:
    try:
        read_yaml(layout.root / name)
    except FileNotFoundError:
        return False
    except InputError:
        return True
    return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
