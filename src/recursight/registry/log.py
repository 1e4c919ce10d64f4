"""Logs a bundle as an MLflow model that contains no pickle and runs without recursight."""

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recursight.files import write_json
from recursight.registry.archive import check_archive
from recursight.registry.versions import FILES, file_digests
from recursight.tasks import task_of
from recursight.tracking.results import Result
from recursight.tracking.runs import BUNDLE
from recursight.tracking.sending import log

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.types import ColSpec, TensorSpec

REFERENCE = "reference.parquet"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "torch")  # imported by MLflow's server


def log_model(
    client: "MlflowClient",
    run: "Run",
    result: Result,
    network: Path,
    *,
    text: str,
    resize: str,
    reference: pd.DataFrame | None = None,
) -> tuple[str, str]:
    """Logs the model to the run of its training, with the run's scores.

    Args:
        client: of the store.
        run: of the training.
        result: the bundle.
        network: the exported bundle, a .pt2 file.
        text: the model card.
        resize: how images of another size are resized.
        reference: what later predictions are compared with, see `monitoring.reference`; stored in the model.

    Returns:
        The id of the logged model, and the digests of its files. A model that a killed process left incomplete is
        completed, a complete one is not changed.
    """
    from mlflow.entities import LoggedModelOutput

    model = enter_model(client, run, result)
    if model.status == "READY" and FILES in model.tags:
        return str(model.model_id), model.tags[FILES]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), model, run.info.run_id, result, network, text, resize, reference)
        files = file_digests(Path(folder) / "model")
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.set_logged_model_tags(model.model_id, {FILES: files})
    outputs = client.get_run(run.info.run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    _copy_scores(client, run.info.run_id, model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id), files


def save_model(
    folder: Path,
    model: "LoggedModel",
    run_id: str,
    result: Result,
    network: Path,
    text: str,
    resize: str,
    reference: pd.DataFrame | None,
) -> None:
    """Writes the model to `folder`/model: exported network, code for MLflow's server, signature, example, card, and the
    reference for drift."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from recursight.models.bundle import read_card
    from recursight.models.kernels import plain
    from recursight.registry.export import EXAMPLES
    from recursight.registry.program import LoadedProgram

    card = read_card(result.bundle)
    task = task_of(card.task)
    check_archive(network)
    about = {
        "candidate": card.candidate,
        "seed": card.seed,
        "bundle_digest": card.digest,
        "task": card.task,
        "vocabulary": card.vocabulary,
        "input_shape": card.input_shape,
        "resize": resize,
    }
    write_json(folder / "about.json", about)
    (folder / "model_card.md").write_text(text, encoding="utf-8")
    shutil.copy(task.served, folder / "rendering.py")
    shutil.copy(Path(__file__).with_name("program.py"), folder)
    shutil.copy(plain.__file__, folder / "operators.py")
    files = {"about": "about.json", "model_card": "model_card.md"}
    files |= {"program": "program.py", "rendering": "rendering.py", "operators": "operators.py"}
    if reference is not None:
        files["reference"] = REFERENCE
        reference.to_parquet(folder / REFERENCE, index=False)
    example = np.zeros((EXAMPLES, *card.input_shape), dtype=np.uint8)
    answer, *_ = task.present(LoadedProgram(network)(example), card.vocabulary)
    images = TensorSpec(example.dtype, (-1, *card.input_shape))
    mlflow.pyfunc.save_model(
        path=folder / "model",
        mlflow_model=_entry(model, run_id, about),
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"network": str(network)} | {name: str(folder / file) for name, file in files.items()},
        signature=ModelSignature(Schema([images]), Schema(_columns(answer))),
        input_example=example,
        pip_requirements=[f"{package}=={_public_version(package)}" for package in REQUIREMENTS],
    )


def _columns(answer: dict[str, Any]) -> "list[ColSpec | TensorSpec]":
    """MLflow's types of an answer; dictionaries become maps, because their keys differ between answers."""
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array, Map

    simple = {str: DataType.string, bool: DataType.boolean, int: DataType.long, float: DataType.double}

    def kind(value: Any) -> Any:
        if isinstance(value, dict):
            return Map(kind(next(iter(value.values()))))
        return Array(kind(value[0])) if isinstance(value, list) else simple[type(value)]

    return [ColSpec(kind(value), name) for name, value in answer.items()]


def _entry(model: "LoggedModel", run_id: str, about: dict[str, Any]) -> Any:
    from mlflow.models import Model

    location = model.artifact_location
    return Model(
        artifact_path=location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id, metadata=about
    )


def enter_model(client: "MlflowClient", run: "Run", result: Result) -> "LoggedModel":
    """Finds or creates MLflow's logged model of a bundle, which may have no files yet."""
    experiment = run.info.experiment_id
    found = client.search_logged_models([experiment], f"tags.`{BUNDLE}` = '{result.digest}'", max_results=1)
    if found:
        return found[0]
    return client.create_logged_model(
        experiment,
        name=result.card["candidate"],
        source_run_id=run.info.run_id,
        tags={BUNDLE: result.digest},
        params=run.data.params,
        model_type=result.card["task"]["name"],
    )


def _copy_scores(client: "MlflowClient", run_id: str, model_id: str) -> None:
    """Copies the final scores from the run to the model; the curves stay with the run."""
    from mlflow.entities import Metric

    scores = {key: value for key, value in client.get_run(run_id).data.metrics.items() if "/" not in key}
    latest = [client.get_metric_history(run_id, key)[-1] for key in scores]
    metrics = [Metric(one.key, one.value, one.timestamp, one.step, model_id=model_id) for one in latest]
    log(client, run_id, metrics=metrics)


def _public_version(package: str) -> str:
    """The installed version without a local part such as `+cpu`, which no package index has."""
    return importlib.metadata.version(package).partition("+")[0]
