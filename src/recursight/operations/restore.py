"""Restores all that made a registered version: code, data, parameters, weights, and the same predictions.

It works in a separate git work tree, so that the project stays as it is. The restored code runs in its own process.
"""

import configparser
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
import yaml

from recursight.commands import dvc, git, message_of, run
from recursight.errors import InputError
from recursight.executors.local import flow_mark
from recursight.files import digest, read_json, write_text
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
    """What became of a restoration.

    Attributes:
        version: that was restored.
        folder: the work tree.
        parts: what is as it was, a sentence each, by name: code, data, parameters, weights, predictions.
        missing: what is not, a sentence each.
        same_predictions: whether every probability is the recorded one, digit for digit; None if that is not known.
    """

    version: int
    folder: str
    parts: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    same_predictions: bool | None = None


class PartMissing(Exception):
    """A part is missing that all later ones need."""


def restore(layout: Layout, version: int) -> Restored:
    """Restores a version to .recursight/restored/VERSION, and scores it again there. An earlier one there is replaced.

    Args:
        layout: of the project, which must be in git.
        version: of the registered model.

    Raises:
        InputError: if there is no such version, or no commit of its code.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    found = find_version(connect(layout), name, version)
    folder = layout.state / "restored" / str(version)
    restored = Restored(version, str(folder))
    project = Layout(_work_tree(layout, found, folder, restored))
    try:
        with tempfile.TemporaryDirectory(prefix="recursight-") as records:
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
    folder.parent.mkdir(parents=True, exist_ok=True)
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
    """What the training's run keeps: the card, the other files of the bundle, the predictions if it was evaluated."""

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
            f"parameters and predictions: the MLflow run of the training is gone or not whole ({error})"
        ) from None
    return Records(card, folder / "training", folder / "evaluation" / "predictions.parquet")


def _data(layout: Layout, project: Layout, version: "ModelVersion", restored: Restored) -> None:
    """Lets DVC bring the raw data, from this project's cache or a remote."""
    md5 = version.tags.get("recursight.data_md5")
    pin = yaml.safe_load(project.data_dvc.read_text(encoding="utf-8")) if project.data_dvc.is_file() else None
    pinned = pin["outs"][0].get("md5") if pin else None
    if md5 and pinned != md5:  # trained before data.dvc was committed
        write_text(project.data_dvc, yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "path": "data"}]}))
    elif not pinned:
        raise PartMissing("data: neither the version nor its commit records which data it was trained on")
    _share_cache(layout, project)
    if dvc(project.root, "checkout", "data.dvc").returncode:
        pulled = dvc(project.root, "pull", "data.dvc")
        if pulled.returncode:
            raise PartMissing(
                f"data: {md5 or pinned} is neither in DVC's cache nor in a remote that this project reaches "
                f"({message_of(pulled)[:MESSAGE_LENGTH]})"
            )
    restored.parts["data"] = f"DVC's {md5 or pinned}"


def _share_cache(layout: Layout, project: Layout) -> None:
    """The work tree uses the project's cache, and its remotes and secrets that are not in git."""
    settings = configparser.ConfigParser(interpolation=None)
    for name in ("config", "config.local"):
        path = layout.root / ".dvc" / name
        if not path.is_file():
            continue
        found = configparser.ConfigParser(interpolation=None)
        found.read(path, encoding="utf-8")
        for section in found.sections():
            values = dict(found[section])
            place = _outside(layout.root, path.parent, values.get("url", ""))
            if place:
                values["url"] = place
            if name == "config.local" or place:
                settings[section] = _section(settings, section) | values
    cache = dvc(layout.root, "cache", "dir").stdout.strip()
    settings["cache"] = _section(settings, "cache") | {"dir": cache}
    local = project.root / ".dvc" / "config.local"
    local.touch(mode=0o600)  # it may hold secrets
    with local.open("w", encoding="utf-8") as file:
        settings.write(file)


def _section(settings: configparser.ConfigParser, name: str) -> dict[str, str]:
    return dict(settings[name]) if settings.has_section(name) else {}


def _outside(root: Path, folder: Path, url: str) -> str | None:
    """A relative path of a remote that leads out of the project, made absolute; what is inside, git has restored."""
    if not url or "://" in url or Path(url).is_absolute():
        return None
    place = (folder / url).resolve()
    return None if place.is_relative_to(root.resolve()) else str(place)


def _parameters(project: Layout, version: "ModelVersion", recorded: Records, restored: Restored) -> None:
    """Writes params.yaml as it was for this training: the commit's, with what the version records laid over it."""
    committed = yaml.safe_load(project.params.read_text(encoding="utf-8"))
    card, params = recorded.card, dict(committed)
    params["seeds"] = [card["seed"]]
    params["task"], params["train"] = card["task"], card["training"]
    params["candidates"] = {card["candidate"]: card["architecture"]}
    if PREPARED in version.tags:
        params["prepare"] = json.loads(version.tags[PREPARED])
    else:
        restored.missing.append("parameters: the version does not record `prepare`; the commit's is used")
    write_text(project.params, yaml.safe_dump(params, sort_keys=False))
    restored.parts["parameters"] = f"those of {card['candidate']}, seed {card['seed']}, as recorded"


def _check_store(project: Layout, version: "ModelVersion", restored: Restored) -> None:
    made, wanted = read_json(project.store / "store.json")["digest"], version.tags.get("recursight.data_digest")
    if made != wanted:
        raise PartMissing(f"data: its store is {made[:12]}, but the version was trained on {str(wanted)[:12]}")
    restored.parts["data"] += f", prepared to the same store {made[:12]}"


def _weights(
    layout: Layout, project: Layout, name: str, version: "ModelVersion", recorded: Records, restored: Restored
) -> None:
    """Rebuilds the bundle from the registered model, whose exported network holds every weight."""
    from safetensors.torch import save

    card = recorded.card
    try:
        network = load_version(layout, name, int(version.version)).program.module
    except (Unreadable, AttributeError) as fault:
        raise PartMissing(f"weights: {fault}") from None
    tensors = {key.removeprefix("network."): value.contiguous() for key, value in network.state_dict().items()}
    weights = save(tensors)
    if digest(card) != version.tags[BUNDLE] or hashlib.sha256(weights).hexdigest() != card["weights_digest"]:
        raise PartMissing("weights: the registered model does not hold those that the training's card names")
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
        raise PartMissing("predictions: they are of other images than those recorded")
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
    """Where they were made, which is the usual reason."""
    was = read_json(recorded.training / "training.json")
    return (
        f"they were made on {was['host']} ({was['device']}, {was['threads']} threads) with torch {was['torch']}; "
        f"here is torch {importlib.metadata.version('torch')}"
    )


def _run(project: Layout, *words: str) -> None:
    """Runs a command of the restored code; without source in the project, of the installed one."""
    source = project.root / "src"
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", RUN_RECURSIGHT, *words]
    finished = run(command, project.root, os.environ | flow_mark() | {"PYTHONPATH": path})
    if finished.returncode:
        message = message_of(finished)[:MESSAGE_LENGTH]
        raise PartMissing(f"`recursight {' '.join(words)}` of the restored code failed: {message}")
