"""Restores a registered version: code, data, parameters and weights, and checks that its predictions are the same.

Everything happens in a separate git work tree, and the restored code runs in its own process.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recursight.commands import dvc, git, message_of, run
from recursight.errors import InputError
from recursight.executors.local import flow_mark
from recursight.files import digest, left_behind, read_json, read_yaml, staging_prefix, write_yaml
from recursight.layout import Layout
from recursight.params import load
from recursight.registry import find_version
from recursight.registry.loading import Unreadable, load_version
from recursight.registry.register import PREPARED
from recursight.tracking import connect
from recursight.tracking.connection import fluent
from recursight.tracking.runs import BUNDLE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

RUN_RECURSIGHT = "from recursight.cli import main; main()"
MESSAGE_LENGTH = 300  # characters of a failed command's message


@dataclass
class Restored:
    """The result of a restoration.

    Attributes:
        version: the restored version.
        folder: of the work tree.
        parts: a sentence for each restored part, by name: code, data, parameters, weights, predictions.
        missing: a sentence for each difference.
        same_predictions: whether all probabilities equal the recorded ones exactly; None if not compared.
    """

    version: int
    folder: str
    parts: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    same_predictions: bool | None = None


class PartMissing(Exception):
    """A part is missing without which the restoration cannot continue."""


def restore(layout: Layout, version: int) -> Restored:
    """Restores a version to .recursight/restored/VERSION, replacing an earlier one, and evaluates it again there.

    Args:
        layout: of a project in git.
        version: of the registered model.

    Raises:
        InputError: if there is no such version, or no commit of its code.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    found = find_version(connect(layout), name, version)
    folder = layout.state / "restored" / str(version)
    restored = Restored(version, str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for killed in left_behind(folder.parent, folder.name):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=staging_prefix(folder.name), dir=folder.parent) as records:
        project = Layout(_work_tree(layout, found, folder, restored))
        try:
            recorded = _records(layout, found, Path(records))
            _data(layout, project, found, restored)
            _parameters(project, found, recorded, restored)
            _run(project, "prepare")
            _check_store(project, found, restored)
            _weights(layout, project, name, found, recorded, restored)
            _score_again(project, recorded, restored)
        except PartMissing as missing:
            restored.missing.append(str(missing))
    return restored


def _work_tree(layout: Layout, version: "ModelVersion", folder: Path, restored: Restored) -> Path:
    """Checks the code out; returns the project's folder in it."""
    described = version.tags.get("git_commit")
    if not described:
        raise InputError(f"version {version.version} was trained outside git: there is no commit to restore.")
    commit = described.removesuffix("-dirty")
    if git(layout.root, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise InputError(
            f"commit {commit} of version {version.version} is not in this repository; `git fetch --all` first."
        )
    shutil.rmtree(folder, ignore_errors=True)
    git(layout.root, "worktree", "prune")
    made = git(layout.root, "worktree", "add", "--force", "--detach", str(folder), commit)
    if made.returncode:
        raise InputError(f"git cannot make the work tree {folder}: {made.stderr.strip()}")
    restored.parts["code"] = f"commit {commit}"
    if described != commit:
        restored.missing.append(
            f"code: the tree had uncommitted changes at training; restored commit {commit} without those changes"
        )
    return folder / git(layout.root, "rev-parse", "--show-prefix").stdout.strip()


@dataclass(frozen=True)
class Records:
    """Files of the training's MLflow run: the card, the rest of the bundle, and predictions if it was evaluated."""

    card: dict[str, Any]
    training: Path
    predictions: Path


def _records(layout: Layout, version: "ModelVersion", folder: Path) -> Records:
    from mlflow.exceptions import MlflowException

    try:
        with fluent(layout) as mlflow:
            for part in ("training", "evaluation"):
                mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=part, dst_path=str(folder))
        card: dict[str, Any] = read_json(folder / "training" / "card.json")
    except (MlflowException, OSError) as error:
        raise PartMissing(
            f"parameters and predictions: the MLflow run of the training is missing or incomplete ({error})"
        ) from None
    return Records(card, folder / "training", folder / "evaluation" / "predictions.parquet")


def _data(layout: Layout, project: Layout, version: "ModelVersion", restored: Restored) -> None:
    """Checks the raw data out with DVC, from this project's cache or a remote."""
    md5 = version.tags.get("recursight.data_md5")
    pin = read_yaml(project.data_dvc) if project.data_dvc.is_file() else None
    pinned = pin["outs"][0].get("md5") if pin else None
    if md5 and pinned != md5:  # trained before data.dvc was committed
        write_yaml(project.data_dvc, {"outs": [{"md5": md5, "hash": "md5", "path": "data"}]})
    elif not pinned:
        raise PartMissing("data: neither the version nor its commit records which data it was trained on")
    _share_cache(layout, project)
    if dvc(project.root, "checkout", "data.dvc").returncode:
        pulled = dvc(project.root, "pull", "data.dvc")
        if pulled.returncode:
            raise PartMissing(
                f"data: {md5 or pinned} is neither in DVC's cache nor in a remote of this project "
                f"({message_of(pulled)[:MESSAGE_LENGTH]})"
            )
    restored.parts["data"] = f"DVC's {md5 or pinned}"


def _share_cache(layout: Layout, project: Layout) -> None:
    """Makes the work tree use the project's cache, and those of its remotes and secrets that are not in git."""
    from dvc.config import Config, merge

    origin = Config(str(layout.root / ".dvc"))
    committed, shared = origin.load_one("repo"), origin.load_one("local")
    for name, remote in committed["remote"].items():
        if not Path(remote["url"]).is_relative_to(layout.root):  # git has restored those inside
            shared["remote"][name] = remote | shared["remote"].get(name, {})
    shared["cache"]["dir"] = dvc(layout.root, "cache", "dir").stdout.strip()
    (project.root / ".dvc" / "config.local").touch(mode=0o600)  # it may contain secrets
    with Config(str(project.root / ".dvc")).edit("local") as settings:
        merge(settings, shared)


def _parameters(project: Layout, version: "ModelVersion", recorded: Records, restored: Restored) -> None:
    """Writes params.yaml as it was for this training: that of the commit, updated from the version's records."""
    committed = read_yaml(project.params)
    card, params = recorded.card, dict(committed)
    params["seeds"] = [card["seed"]]
    params["task"], params["train"] = card["task"], card["training"]
    params["candidates"] = {card["candidate"]: card["architecture"]}
    if PREPARED in version.tags:
        params["prepare"] = json.loads(version.tags[PREPARED])
    else:
        restored.missing.append("parameters: the version does not record `prepare`; the commit's is used")
    write_yaml(project.params, params)
    restored.parts["parameters"] = f"those of {card['candidate']}, seed {card['seed']}, as recorded"


def _check_store(project: Layout, version: "ModelVersion", restored: Restored) -> None:
    made, wanted = read_json(project.store / "store.json")["digest"], version.tags.get("recursight.data_digest")
    if made != wanted:
        raise PartMissing(f"data: its store is {made[:12]}, but the version was trained on {str(wanted)[:12]}")
    restored.parts["data"] += f", prepared to the same store {made[:12]}"


def _weights(
    layout: Layout, project: Layout, name: str, version: "ModelVersion", recorded: Records, restored: Restored
) -> None:
    """Rebuilds the bundle from the registered model, whose exported network has all weights."""
    from safetensors.torch import save

    card = recorded.card
    try:
        trained = load_version(layout, name, int(version.version)).program.tensors
    except (Unreadable, AttributeError) as fault:
        raise PartMissing(f"weights: {fault}") from None
    tensors = {key.removeprefix("network."): value.contiguous() for key, value in trained.items()}
    weights = save(tensors)
    if digest(card) != version.tags[BUNDLE] or hashlib.sha256(weights).hexdigest() != card["weights_digest"]:
        raise PartMissing("weights: those of the registered model differ from the digest in the training's card")
    bundle = project.bundle(card["candidate"], card["seed"])
    shutil.copytree(recorded.training, bundle)
    (bundle / "model.safetensors").write_bytes(weights)
    restored.parts["weights"] = f"SHA-256 {card['weights_digest'][:12]}"


def _score_again(project: Layout, recorded: Records, restored: Restored) -> None:
    if not recorded.predictions.is_file():
        raise PartMissing("predictions: the training's run has none to compare with")
    card = recorded.card
    _run(project, "evaluate", card["candidate"])
    again = pd.read_parquet(project.evaluation_of(card["candidate"], card["seed"]) / "predictions.parquet")
    before = pd.read_parquet(recorded.predictions)
    keys = ["split", "id"]
    if not again[keys].equals(before[keys]):
        raise PartMissing("predictions: they are for other images than the recorded ones")
    new, old = (np.stack(table["answer"].to_list()) for table in (again, before))
    changed = int((new != old).any(axis=1).sum())
    restored.same_predictions = changed == 0
    if changed:
        restored.missing.append(
            f"predictions: {changed} of {len(old)} differ, by up to {abs(new - old).max():.2g}; {_elsewhere(recorded)}"
        )
    else:
        restored.parts["predictions"] = f"all {len(old):,} the same, digit for digit"


def _elsewhere(recorded: Records) -> str:
    """The environment of the training, whose difference is the usual reason."""
    was = read_json(recorded.training / "training.json")
    return (
        f"they were made on {was['host']} ({was['device']}, {was['threads']} threads) with torch {was['torch']}; "
        f"here is torch {importlib.metadata.version('torch')}"
    )


def _run(project: Layout, *words: str) -> None:
    """Runs a command of the restored code, or of the installed package if the project has no source."""
    source = project.root / "src"
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", RUN_RECURSIGHT, *words]
    finished = run(command, project.root, os.environ | flow_mark() | {"PYTHONPATH": path})
    if finished.returncode:
        message = message_of(finished)[:MESSAGE_LENGTH]
        raise PartMissing(f"`recursight {' '.join(words)}` of the restored code failed: {message}")
