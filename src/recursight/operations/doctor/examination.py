"""Runs all checks in parallel; those with large imports, or that may hang, in separate processes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from recursight import processes
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.operations.doctor import leftovers, project, services, software
from recursight.operations.doctor.finding import Finding

LIMIT_SECONDS = 60.0  # of one check
CHECKS: dict[str, Callable[[Any], Iterator[Finding]]] = {
    "versions": software.versions,
    "device": software.device,
    "params": project.params,
    "git": project.git,
    "data": project.data,
    "content of data": project.content,
    "remote": project.remote,
    "disk": project.disk,
    "logins": services.logins,
    "servers": services.servers,
    "worker": services.worker,
    "leftovers": leftovers.left,
    "leftovers in MLflow": leftovers.left_in_mlflow,
}
WITHOUT_PROJECT = ("versions", "device")
APART = ("device", "content of data", "remote", "leftovers in MLflow")  # they import torch, DVC or MLflow


def examine(layout: Layout | None, limit_seconds: float = LIMIT_SECONDS) -> list[Finding]:
    """Runs every check and returns the findings in order; a check that fails or hangs becomes a finding.

    Args:
        layout: of the project; None outside of one.
        limit_seconds: time limit of a check.
    """
    names = list(CHECKS) if layout else list(WITHOUT_PROJECT)
    with ThreadPoolExecutor(len(names)) as pool:
        answers = {name: pool.submit(_apart if name in APART else _here, name, layout, limit_seconds) for name in names}
        found = [finding for answer in answers.values() for finding in answer.result()]
    if layout is None:
        found.append(Finding("project", "fix", "no params.yaml and dvc.yaml here or above: change into a project"))
    elif not any(finding.area == "leftovers" for finding in found):
        found.append(Finding("leftovers", "ok", "killed processes left nothing"))
    return found


def _here(name: str, layout: Layout | None, limit_seconds: float) -> list[Finding]:
    try:
        return list(CHECKS[name](layout))
    except Exception as error:
        return [Finding(name, "fix", f"this check failed: {type(error).__name__}: {error}")]


def _apart(name: str, layout: Layout | None, limit_seconds: float) -> list[Finding]:
    command = [sys.executable, "-m", "recursight.operations.doctor", name]
    root = layout.root if layout else None
    try:
        finished = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=limit_seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return [Finding(name, "fix", f"no answer in {limit_seconds:.0f} s")]
    try:
        return [Finding(**finding) for finding in json.loads(finished.stdout.splitlines()[-1])]
    except (IndexError, ValueError, TypeError):
        last = next(iter(reversed(finished.stderr.strip().splitlines())), f"exit status {finished.returncode}")
        return [Finding(name, "fix", f"this check failed: {last}", software.install(layout))]


def main() -> None:
    """Runs one check in this process and prints its findings as one line of JSON."""
    processes.reduce_garbage_collection()
    try:
        layout = Layout.find()
    except InputError:
        layout = None
    print(json.dumps([asdict(finding) for finding in _here(sys.argv[1], layout, LIMIT_SECONDS)]))
