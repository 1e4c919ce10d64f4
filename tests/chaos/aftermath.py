"""What must hold after a kill and one more run: everything is there once, and nothing is left of what was killed."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from tests.platforms import Platform

HALF = (".*.*.*", "*.partial", "*.holder", "*.tmp")  # as `files.replacing`, checkpoints, locks and DVC leave them
END_SECONDS = 20.0  # for what ends by itself soon: recorders, temporary servers


def weights(root: Path) -> dict[str, str]:
    """SHA-256 of every trained network."""
    found = sorted((root / "artifacts" / "candidates").glob("*/seed-*/model.safetensors"))
    return {path.parent.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def faults(platform: Platform, experiment: str, expected: dict[str, str]) -> list[str]:
    """What is wrong, in sentences; nothing if all is well.

    Args:
        platform: whose servers run.
        experiment: MLflow's, and the registered model's name.
        expected: the weights of an undisturbed run.
    """
    root = platform.workspace.root
    found = [] if weights(root) == expected else ["the weights are others"]
    found += _processes(platform)
    found += _in_mlflow(platform, experiment, set(expected))
    found += _in_prefect(platform)
    found += [f"left: {path.relative_to(root)}" for path in half_files(root)]
    found += [f"held: {path.relative_to(root)}" for path in held_locks(root)]
    status = json.loads(platform.workspace.run("dvc", "status", "--json"))
    return found + [f"dvc: {stage} is not up to date" for stage in status]


def half_files(root: Path) -> Iterator[Path]:
    for folder in (root / "artifacts", root / ".recursight", root / ".dvc" / "tmp"):
        for pattern in HALF:
            for path in folder.rglob(pattern):
                if not {"prefect", "logs"} & set(path.relative_to(root).parts):
                    yield path
    yield from root.glob(".mlflow.db.[0-9]*")


def held_locks(root: Path) -> Iterator[Path]:
    """Locks that somebody holds, the system's and those that DVC writes down."""
    for path in (root / ".recursight" / "locks").glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            yield path
    noted = root / ".dvc" / "tmp" / "rwlock"
    if noted.exists() and any(json.loads(noted.read_text()).values()):
        yield noted


def strangers(platform: Platform) -> list[psutil.Process]:
    """Processes at work in the project, but for the servers, the worker and what serves for them."""
    root = platform.workspace.root
    known: set[int] = set()
    for name in ("prefect", "mlflow", "worker"):
        with suppress(psutil.Error):
            process = platform.process(name)
            known |= {process.pid} | {child.pid for child in process.children() if name != "worker"}
    return [process for process in processes_of(root) if process.pid not in known]


def processes_of(root: Path) -> list[psutil.Process]:
    """All processes at work in a project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            folders = process.environ().get("PYTHONPATH", "").split(os.pathsep)
            if str(root / "src") in folders and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _processes(platform: Platform) -> list[str]:
    deadline = time.monotonic() + END_SECONDS
    while (left := strangers(platform)) and time.monotonic() < deadline:
        time.sleep(0.25)
    said = []
    for process in left:
        with suppress(psutil.Error):
            said.append(f"still runs: {process.pid} {' '.join(process.cmdline())[-80:]}")
    return said


def _in_mlflow(platform: Platform, experiment: str, candidates: set[str]) -> list[str]:
    found = []
    for name in (experiment, f"{experiment}-decisions"):
        runs = mlflow_runs(platform, name)
        found += [f"MLflow: {run['info']['run_name']} is RUNNING" for run in runs if run["info"]["status"] == "RUNNING"]
    runs = [run for run in mlflow_runs(platform, experiment) if run["info"]["status"] == "FINISHED"]
    names = sorted(run["info"]["run_name"] for run in runs)
    if names != sorted(candidates):
        found.append(f"MLflow has the trainings {names}")
    for run in runs:
        keys = {metric["key"] for metric in run["data"]["metrics"]}
        if not {"test_accuracy", "validation_accuracy", "epoch/validation_loss"} <= keys:
            found.append(f"MLflow: {run['info']['run_name']} lacks metrics")
    query = f"/api/2.0/mlflow/model-versions/search?max_results=100&filter=name%3D%27{experiment}%27"
    versions = platform.ask("mlflow", query).get("model_versions", [])
    if len(versions) != 1:
        found.append(f"MLflow has {len(versions)} versions")
    alias = platform.ask("mlflow", f"/api/2.0/mlflow/registered-models/alias?name={experiment}&alias=champion")
    if isinstance(alias, int):
        found.append("there is no champion")
    return found


def mlflow_runs(platform: Platform, experiment: str) -> list[dict[str, Any]]:
    known = platform.ask("mlflow", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}")
    if isinstance(known, int):
        return []
    body = {"experiment_ids": [known["experiment"]["experiment_id"]], "max_results": 1000}
    runs: list[dict[str, Any]] = platform.ask("mlflow", "/api/2.0/mlflow/runs/search", body).get("runs", [])
    return runs


def _in_prefect(platform: Platform) -> list[str]:
    states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    runs = platform.ask("prefect", "/api/flow_runs/filter", {"flow_runs": states})
    found = [f"Prefect: flow run {run['name']} is {run['state_name']}" for run in runs]
    for limit in platform.ask("prefect", "/api/v2/concurrency_limits/filter", {}):
        if limit["active_slots"]:
            found.append(f"Prefect: {limit['active_slots']} slots of {limit['name']} are taken")
    return found
