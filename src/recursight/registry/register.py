"""Registers the winner of the comparison as a version."""

import json
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recursight.errors import InputError
from recursight.files import digest, read_json
from recursight.layout import Layout
from recursight.monitoring.reference import reference_of
from recursight.params import Params, load
from recursight.registry.card import model_card
from recursight.registry.decisions import Decision, decide, history, retry_if_champion_moved, settle
from recursight.registry.gate import Scored, judge
from recursight.registry.log import log_model
from recursight.registry.promote import alias_lock, rule_of
from recursight.registry.versions import CHALLENGER, CHAMPION, FILES, REQUEST, only_one, version_of, version_with
from recursight.tracking import connect, sync
from recursight.tracking.connection import experiment_id, fluent
from recursight.tracking.results import Result, prepared_with, result_in, source_digest
from recursight.tracking.runs import BUNDLE, find_finished

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

PREPARED = "recursight.prepare"
VOCABULARY = "recursight.vocabulary"


@dataclass(frozen=True)
class Registered:
    """The registered winner.

    Attributes:
        name: of the registered model.
        version: of the winner.
        candidate: its name in params.yaml.
        seed: of its training.
        created: whether the version is new.
        alias: `champion` or `challenger`.
        reason: for this alias, in a sentence.
        champion: the version in production; None if there is none.
        run_id: of the training's MLflow run.
    """

    name: str
    version: int
    candidate: str
    seed: int
    created: bool
    alias: str
    reason: str
    champion: int | None
    run_id: str


@retry_if_champion_moved
def register(layout: Layout) -> Registered:
    """Registers the winner, unless its bundle already has a version.

    Raises:
        InputError: if nothing has been compared, or the winner's evaluation does not match its weights.
        Unreachable: if MLflow does not answer.
    """
    params = load(layout.params)
    result = winner(layout)
    name = params.registry.model_name
    with alias_lock(layout):
        client = connect(layout)
        version = version_of(client, name, result.digest)
        created = version is None
        if version is None:
            version = _create_version(client, layout, params, result)
        elif FILES not in version.tags:  # an earlier release registered it
            _, files, *_ = _log(client, layout, params, result, _run_of(client, layout, params, result))
            client.set_model_version_tag(name, version.version, FILES, files)
        alias, reason = _set_role(client, layout, params, version, result)
        champion = version_with(client, name, CHAMPION)
    return Registered(
        name=name,
        version=int(version.version),
        candidate=result.card["candidate"],
        seed=result.card["seed"],
        created=created,
        alias=alias,
        reason=reason,
        champion=int(champion.version) if champion else None,
        run_id=version.run_id or "",
    )


def winner(layout: Layout) -> Result:
    """The training that won the comparison, with its files.

    Raises:
        InputError: if there is no comparison, or no evaluation of these weights.
    """
    path = layout.comparison / "comparison.json"
    if not path.is_file():
        raise InputError("Nothing has been compared yet: run `recursight pipeline`, or `dvc repro`.")
    comparison = read_json(path)
    name, seed = comparison["winner"], comparison["winner_seed"]
    result = result_in(layout.bundle(name, seed), layout.evaluation_of(name, seed))
    if result is None:
        raise InputError(f"{layout.bundle(name, seed)} holds no trained candidate; restore it with `dvc checkout`.")
    if result.evaluation is None:
        raise InputError(f"The evaluation of {name}, seed {seed}, is not of its present weights; run `dvc repro`.")
    if "latency_on" not in result.metrics:
        raise InputError(f"An earlier release of recursight evaluated {name}, seed {seed}; run `dvc repro`.")
    return result


def _create_version(client: "MlflowClient", layout: Layout, params: Params, result: Result) -> "ModelVersion":
    name, card = params.registry.model_name, result.card
    run = _run_of(client, layout, params, result)
    model_id, files, text, latency = _log(client, layout, params, result, run)
    tags = {
        BUNDLE: result.digest,
        FILES: files,
        REQUEST: uuid.uuid4().hex,
        "candidate": card["candidate"],
        "seed": str(card["seed"]),
        "recursight.data_digest": card["data_digest"],
        "recursight.data_md5": source_digest(layout, card["data_digest"]),
        "git_commit": result.training.get("git_commit"),
        PREPARED: _prepare_settings(layout, card["data_digest"]),
        "latency_ms": f"{latency['latency_ms']:.3f}",
        "latency_on": latency["latency_on"],
        VOCABULARY: digest([card["task"]["name"], sorted(card["vocabulary"])]),
    }
    _ensure_model(client, name)
    with fluent(layout):
        version = client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run.info.run_id,
            tags={key: value for key, value in tags.items() if value},
            description=text,
            model_id=model_id,
        )
    version = only_one(client, name, version)
    link = json.dumps([{"name": name, "version": int(version.version)}])  # shows the version beside the model
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    return version


def _run_of(client: "MlflowClient", layout: Layout, params: Params, result: Result) -> "Run":
    sync(layout)
    experiment = experiment_id(client, layout, params.registry.experiment)
    run = find_finished(client, experiment, bundle=result.digest)
    if run is None:
        raise InputError(f"The MLflow run of {result.card['candidate']} was deleted while it was being registered.")
    return run


def _log(
    client: "MlflowClient", layout: Layout, params: Params, result: Result, run: "Run"
) -> tuple[str, str, str, dict[str, Any]]:
    """Logs the winner's model. Returns its id, the digest of its files, the model card, and the measured latency."""
    from recursight.registry.export import export_bundle  # imports torch, so only where there is something to export

    vocabulary = result.card["vocabulary"]
    answers, rows = tested(result)
    (answer,) = params.built_task.present(answers[:1], vocabulary)
    assert result.evaluation is not None  # a winner has one
    reference = reference_of(layout.store, result.evaluation, params.built_task, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.pt2"
        latency = export_bundle(result.bundle, network, threads=params.serve.threads)
        text = model_card(layout, params, result, rows, answer, latency)
        model_id, files = log_model(
            client,
            run,
            result,
            network,
            text=text,
            resize=params.prepare.resize,
            reference=reference,
        )
    return model_id, files, text, latency


def tested(result: Result) -> tuple[np.ndarray, pd.DataFrame]:
    """An evaluated result's answers for the test split, and their scores, from `Task.score`."""
    assert result.evaluation is not None
    rows = pd.read_parquet(result.evaluation / "predictions.parquet")
    rows = rows[rows["split"] == "test"].reset_index(drop=True)
    return np.stack(rows["answer"].to_list()), rows.drop(columns=["split", "id", "answer"])


def _prepare_settings(layout: Layout, data_digest: str) -> str | None:
    """The parameters that rebuild the store from the data, as JSON; all others are on the model card."""
    settings = prepared_with(layout, data_digest)
    return None if settings is None else json.dumps(settings)


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="The best network; the alias `champion` is in production.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _set_role(
    client: "MlflowClient", layout: Layout, params: Params, version: "ModelVersion", result: Result
) -> tuple[str, str]:
    """Sets the winner's alias: champion if there is none and it reaches the minimums, else challenger.

    Whether it becomes the first champion is a decision, recorded in the history.
    """
    name = params.registry.model_name
    interrupted = settle(client, name)
    champion = version_with(client, name, CHAMPION)
    if champion is not None:
        alias, reason = _beside(client, name, version, champion)
        return alias, reason + " An interrupted command had decided that; it is complete now." * bool(interrupted)
    first = _first(layout, params, version, result)
    past = history(client, name, most=1)
    if not past or first.promoted or past[0].question != first.question:
        decide(client, layout, name, first)
    if first.promoted:
        return CHAMPION, first.reason
    _set_alias(client, name, CHALLENGER, version)
    return CHALLENGER, first.reason


def _beside(client: "MlflowClient", name: str, version: "ModelVersion", champion: "ModelVersion") -> tuple[str, str]:
    """The winner's alias if there is a champion; the gate decides later whether it replaces the champion."""
    if int(champion.version) != int(version.version):
        _set_alias(client, name, CHALLENGER, version)
        known = {one.tags[VOCABULARY] for one in (champion, version) if VOCABULARY in one.tags}
        other = " for another task or vocabulary: give this one a separate `registry.model_name`" * (len(known) > 1)
        return CHALLENGER, f"version {champion.version} is the champion{other}."
    if version_with(client, name, CHALLENGER):  # an earlier winner
        client.delete_registered_model_alias(name, CHALLENGER)
    return CHAMPION, "it is the champion already."


def _set_alias(client: "MlflowClient", name: str, alias: str, version: "ModelVersion") -> None:
    holder = version_with(client, name, alias)
    if holder is None or int(holder.version) != int(version.version):
        client.set_registered_model_alias(name, alias, version.version)


def _first(layout: Layout, params: Params, version: "ModelVersion", result: Result) -> Decision:
    """Decides from the evaluation on the test split whether a version becomes the first champion."""
    card, data = result.card, result.card["data_digest"]
    cost = card["parameters"] if params.gate.cost == "parameters" else result.metrics["latency_ms"]
    _, rows = tested(result)
    verdict = judge(params.gate, params.built_task, params.minimums, Scored(int(version.version), rows, cost), None)
    rule = rule_of(params)
    return Decision(
        kind="first",
        version=int(version.version),
        candidate=card["candidate"],
        champion=None,
        promoted=verdict.promote,
        reason=verdict.reason if verdict.promote else f"no champion yet, but {verdict.reason}",
        numbers=verdict.numbers,
        rule=rule,
        data_digest=data,
        data_md5=source_digest(layout, data),
        question=digest({"version": int(version.version), "champion": None, "data": data, "rule": rule, "first": True}),
    )
