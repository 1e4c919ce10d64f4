"""Puts a result onto its MLflow run. Every step can be repeated: what is there already is not added again."""

import importlib.metadata
import json
import socket
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from recursight.data.records import EVALUATED
from recursight.layout import Layout
from recursight.params import Params
from recursight.tracking import runs
from recursight.tracking.results import Result, source_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BATCH = 1000  # metrics that MLflow takes at once


def send(client: "MlflowClient", layout: Layout, params: Params, experiment: str, result: Result) -> tuple[bool, bool]:
    """Completes the run of a result; returns whether the training, and whether the evaluation, was missing."""
    run = runs.only_one(client, experiment, result.digest)
    run_id = str(run.info.run_id) if run else send_training(client, layout, params, experiment, result)
    if run:  # perhaps another clone's, made while the attempt of this one failed
        _drop_attempts(client, experiment, layout, result, run_id)
    evaluation = result.evaluation_digest
    if evaluation is None or (run and run.data.tags.get(runs.EVALUATION) == evaluation):
        return run is None, False
    send_evaluation(client, run_id, result)
    return run is None, True


def send_training(
    client: "MlflowClient", layout: Layout, params: Params, experiment: str, result: Result, run_id: str | None = None
) -> str:
    """Logs a finished training, continuing the run that a cut-off one left, and ends the run.

    Args:
        client: of the store.
        layout: of the project.
        params: of the project, for the run's name.
        experiment: id of the experiment.
        result: what to log.
        run_id: the run to continue, if it is known.

    Returns:
        The run's id.
    """
    card = result.card
    tags = runs.tags_of(card, result.training.get("git_commit"))
    cut_off = runs.unfinished(client, experiment, card["candidate"], card["training_digest"], layout.root)
    if run_id is None and cut_off:
        run_id = cut_off[0].info.run_id
    known = epochs_of(client, run_id) if run_id else set()
    if run_id is None:
        name = runs.run_name(params, card["candidate"], card["seed"])
        tags |= runs.Owner.process(layout.root).tags
        run = client.create_run(experiment, start_time=result.started_at_ms, tags=tags, run_name=name)
        run_id = str(run.info.run_id)
    log(client, run_id, params=runs.params_of(card), tags=tags)
    log(client, run_id, metrics=[*_curves(result, known), *_gradients(result), *_summary(result)])
    log_lineage(client, run_id, layout, card)
    for name in ("card.json", "training.json", "history.csv", "gradient_norms.csv"):
        if (result.bundle / name).is_file():
            client.log_artifact(run_id, str(result.bundle / name), "training")
    client.log_text(run_id, _environment(result.training), "training/environment.txt")
    client.set_tag(run_id, runs.BUNDLE, result.digest)
    _drop_attempts(client, experiment, layout, result, run_id)
    client.set_terminated(run_id, "FINISHED", end_time=result.finished_at_ms)
    kept = runs.only_one(client, experiment, result.digest)
    return str(kept.info.run_id) if kept else run_id


def _drop_attempts(client: "MlflowClient", experiment: str, layout: Layout, result: Result, kept: str) -> None:
    """Deletes the runs that a training was begun in and that did not come to an end, but for the one that did."""
    card = result.card
    for run in runs.unfinished(client, experiment, card["candidate"], card["training_digest"], layout.root):
        if run.info.run_id != kept:
            client.delete_run(run.info.run_id)


def send_evaluation(client: "MlflowClient", run_id: str, result: Result) -> None:
    """Logs scores and figures on the run of the training; the tag that says so comes last."""
    metrics, folder = result.metrics, result.evaluation
    assert folder is not None
    values = {
        f"{split}_{name}": value for split in EVALUATED for name, value in metrics[split].items() if name != "count"
    }
    values |= {key: metrics.get(key) for key in ("latency_ms", "throughput")}
    at = result.finished_at_ms
    log(client, run_id, metrics=[_metric(key, value, at) for key, value in values.items() if value is not None])
    log(client, run_id, tags={key: metrics[key] for key in ("latency_on", "device") if key in metrics})
    client.log_artifacts(run_id, str(folder), "evaluation")
    client.set_tag(run_id, runs.EVALUATION, result.evaluation_digest)


def log(
    client: "MlflowClient",
    run_id: str,
    *,
    metrics: "list[Metric] | None" = None,
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Logs in as few requests as MLflow's limits allow."""
    from mlflow.entities import Param, RunTag

    rest = iter(metrics or [])
    while batch := list(islice(rest, BATCH)):
        client.log_batch(run_id, metrics=batch)
    values, labels = iter((params or {}).items()), iter((tags or {}).items())
    while True:
        some_values = [Param(key, value[:6000]) for key, value in islice(values, 100)]
        some_labels = [RunTag(key, value) for key, value in islice(labels, 100)]
        if not some_values and not some_labels:
            return
        client.log_batch(run_id, params=some_values, tags=some_labels)


def epoch_metrics(row: dict[str, Any], at_ms: int) -> "list[Metric]":
    """One row of history.csv. The prefix keeps the curves apart from the scores of the finished model."""
    step = int(row["epoch"])
    return [_metric(f"epoch/{key}", float(value), at_ms, step) for key, value in row.items() if key != "epoch"]


def epochs_of(client: "MlflowClient", run_id: str) -> set[int]:
    """Epochs that a run has. An epoch is logged in one batch, so one of its metrics speaks for all."""
    return {metric.step for metric in client.get_metric_history(run_id, "epoch/validation_loss")}


def log_lineage(client: "MlflowClient", run_id: str, layout: Layout, card: dict[str, Any]) -> None:
    """Names the data on the run: the raw data by DVC's digest, the store by its own (shortened to MLflow's 36)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def dataset(name: str, digest: str, source: dict[str, str], context: str) -> DatasetInput:
        entity = Dataset(name=name, digest=digest[:36], source_type="dvc", source=json.dumps(source))
        return DatasetInput(entity, [InputTag("mlflow.data.context", context)])

    inputs = [dataset("store", card["data_digest"], {"path": "artifacts/store"}, "training")]
    raw = source_digest(layout, card["data_digest"])
    if raw:
        inputs.append(dataset("data", raw, {"path": "data", "md5": raw}, "source"))
        client.set_tag(run_id, "recursight.data_md5", raw)
    client.log_inputs(run_id, datasets=inputs)


def _curves(result: Result, known: set[int]) -> "list[Metric]":
    """Epochs that the run does not have, each at the time of its end, counted back from the training's."""
    rows = result.history[::-1]
    before_end = accumulate((row["seconds"] for row in rows), initial=0.0)
    return [
        metric
        for row, seconds in zip(rows, before_end, strict=False)
        if int(row["epoch"]) not in known
        for metric in epoch_metrics(row, result.finished_at_ms - round(seconds * 1000))
    ]


def _gradients(result: Result) -> "list[Metric]":
    """‖∂loss/∂h[t]‖ over t, named by depth and direction only, so that unlike layers share one chart."""
    metrics = []
    for row in result.gradient_norms:
        depth, *rest = row["layer"].split(".")
        name = "_".join([f"layer_{depth}", *rest[1:], row["state"]])
        metrics.append(_metric(f"gradient_norms/{name}", float(row["norm"]), result.finished_at_ms, int(row["step"])))
    return metrics


def _summary(result: Result) -> "list[Metric]":
    training = result.training
    values = {
        "parameters": result.card["parameters"],
        "best_epoch": result.card["best_epoch"],
        "train_seconds": training["seconds"],
        "train_images_per_second": training["images_per_second"],
    }
    return [_metric(key, float(value), result.finished_at_ms) for key, value in values.items()]


def _metric(key: str, value: float, at_ms: int, step: int = 0) -> "Metric":
    from mlflow.entities import Metric

    return Metric(key, value, at_ms, step)


def _environment(training: dict[str, Any]) -> str:
    """Machine and versions; the packages too, if this is the environment that the training ran in."""
    lines = [f"{key}: {training[key]}" for key in ("device", "threads", "host", "python", "torch") if key in training]
    here = training.get("host") == socket.gethostname() and training.get("torch") == importlib.metadata.version("torch")
    if not here:
        return "\n".join([*lines, "packages: not known, the training ran elsewhere"]) + "\n"
    packages = {f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()}
    return "\n".join([*lines, "", *sorted(packages, key=str.lower)]) + "\n"
