"""Checks of the environment: Python, package versions, the device and the native kernels."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.operations.doctor.finding import Finding, some

SHOWN = ("torch", "mlflow", "prefect", "dvc", "scikit-learn", "recursight")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
LOCKS = ("requirements.lock", "requirements.torch.lock")


def versions(layout: Layout | None) -> Iterator[Finding]:
    """Python and package versions, against pyproject.toml and requirements.lock."""
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        yield Finding("python", "ok", platform.python_version())
    else:
        again = ("rm -rf .venv", "make PYTHON=python3.12 setup")
        yield Finding("python", "fix", f"{platform.python_version()}: 3.11 to 3.14 is needed", again)
    outside = _outside_bounds()
    if outside:
        yield Finding("packages", "fix", f"versions that recursight does not support: {some(outside)}", install(layout))
    drift = [package for name in LOCKS for package in _drift(layout.root / name)] if layout else []
    if drift and not outside:
        yield Finding("packages", "fix", f"versions that differ from requirements.lock: {some(drift)}", install(layout))
    if not drift and not outside:
        yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in SHOWN))


def device(layout: Layout | None) -> Iterator[Finding]:
    """The device of trainings, and whether native kernels are available. Imports torch."""
    import torch

    from recursight.params import load
    from recursight.training.devices import choose_device

    wanted = "auto"
    with suppress(InputError):  # reported by another check
        wanted = load(layout.params).execution.device if layout else "auto"
    try:
        chosen = choose_device(wanted)
    except InputError as error:
        yield Finding("device", "fix", str(error), (edit(layout),))
        return
    cores = f"{os.cpu_count()} CPU cores"
    if chosen.type == "cuda":
        memory = torch.cuda.get_device_properties(chosen).total_memory / 2**30
        yield Finding("device", "ok", f"{torch.cuda.get_device_name(chosen)}, {memory:.0f} GiB; {cores}")
    elif chosen.type == "cpu" and wanted == "auto" and Path("/proc/driver/nvidia/version").exists():
        again = ("rm -f .venv/installed", "UV_TORCH_BACKEND=auto make setup")
        yield Finding("device", "note", f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it", again)
    else:
        yield Finding("device", "ok", f"{'Apple GPU (MPS)' if chosen.type == 'mps' else 'CPU'}; {cores}")
    yield _kernels()


def install(layout: Layout | None) -> tuple[str, ...]:
    """The commands that install the pinned packages."""
    if layout and Path(sys.prefix) == layout.root / ".venv" and (layout.root / "Makefile").exists():
        return ("rm -f .venv/installed", "make setup")
    return tuple(f"{sys.executable} -m pip install -r {name}" for name in LOCKS)


def edit(layout: Layout | None) -> str:
    name = "params.yaml" if layout is None else os.path.relpath(layout.params)
    return f"${{EDITOR:-vi}} {name}"


def _outside_bounds() -> list[str]:
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires("recursight") or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        version = _version(needed.name)
        if version is None:
            found.append(f"{needed.name} is missing")
        elif not needed.specifier.contains(version, prereleases=True):
            found.append(f"{needed.name} {version} (needs {needed.specifier})")
    return found


def _drift(lock: Path) -> list[str]:
    """Installed packages whose version differs from the lock's."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in lock.read_text().splitlines() if lock.exists() else []:
        try:
            pinned = Requirement(line.partition("#")[0].strip(" \\"))
        except InvalidRequirement:
            continue
        version = _version(pinned.name)
        applies = not pinned.marker or pinned.marker.evaluate()
        if version and applies and not pinned.specifier.contains(version.partition("+")[0], prereleases=True):
            found.append(f"{pinned.name} {version} (pinned {pinned.specifier})")
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernels() -> Finding:
    from recursight.models.kernels import build

    if os.environ.get(build.SWITCH) == "0":
        return Finding(
            "kernels", "note", f"native kernels are switched off by {build.SWITCH}=0", (f"unset {build.SWITCH}",)
        )
    try:
        return Finding("kernels", "ok", f"native kernels are built: {build.built_in_advance() or build.build()}")
    except (OSError, RuntimeError) as error:
        commands = () if any(map(shutil.which, ("c++", "g++", "clang++"))) else (_compiler_installation(),)
        return Finding("kernels", "note", f"recurrent layers are correct but slower: {error}", commands)


def _compiler_installation() -> str:
    if sys.platform == "darwin":
        return "xcode-select --install"
    known = {"apt-get": "sudo apt-get install -y g++", "dnf": "sudo dnf install -y gcc-c++", "apk": "sudo apk add g++"}
    return next((command for tool, command in known.items() if shutil.which(tool)), known["apt-get"])
