"""Logs a bundle as an MLflow model that runs from code, without pickles and without recursight."""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recursight.files import write_json
from recursight.tracking.results import Result
from recursight.tracking.runs import BUNDLE
from recursight.tracking.sending import log

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

REFERENCE = "reference.parquet"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "torch")  # all that serving imports


def log_model(
    client: "MlflowClient", run: "Run", result: Result, text: str, resize: str, reference: pd.DataFrame | None = None
) -> str:
    """Logs the model onto the run of its training, with the run's scores.

    Args:
        client: of the store.
        run: of the training.
        result: the bundle.
        text: the model card.
        resize: how an image of another size is fitted, for those who decode images.
        reference: what later predictions are compared with, see `monitoring.reference`; it stays with the version.

    Returns:
        The id of the logged model. One that a kill left half logged is completed, a complete one left as it is.
    """
    from mlflow.entities import LoggedModelOutput

    model = enter_model(client, run, result)
    if model.status == "READY":
        return str(model.model_id)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), model, run.info.run_id, result, text, resize, reference)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    outputs = client.get_run(run.info.run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    _copy_scores(client, run.info.run_id, model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def save_model(
    folder: Path,
    model: "LoggedModel",
    run_id: str,
    result: Result,
    text: str,
    resize: str,
    reference: pd.DataFrame | None,
) -> None:
    """Writes the model to `folder`/model: the exported network, the code that runs it, signature, example, card, and
    the reference for drift."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Map

    from recursight.models.bundle import load_bundle
    from recursight.models.kernels import plain
    from recursight.registry.export import EXAMPLES, export

    network, card = load_bundle(result.bundle)
    export(network, card.input_shape, folder / "network.pt2")
    about = {
        "candidate": card.candidate,
        "seed": card.seed,
        "bundle_digest": card.digest,
        "classes": card.classes,
        "input_shape": card.input_shape,
        "resize": resize,
    }
    write_json(folder / "about.json", about)
    (folder / "model_card.md").write_text(text, encoding="utf-8")
    answers: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
    images = TensorSpec(np.dtype(np.uint8), (-1, *card.input_shape))
    files = {"network": "network.pt2", "about": "about.json", "model_card": "model_card.md"}
    if reference is not None:
        files["reference"] = REFERENCE
        reference.to_parquet(folder / REFERENCE, index=False)
    mlflow.pyfunc.save_model(
        path=folder / "model",
        mlflow_model=_entry(model, run_id, about),
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={name: str(folder / file) for name, file in files.items()} | {"operators": str(plain.__file__)},
        signature=ModelSignature(Schema([images]), Schema(answers)),
        input_example=np.zeros((EXAMPLES, *card.input_shape), dtype=np.uint8),
        pip_requirements=[f"{package}=={_public_version(package)}" for package in REQUIREMENTS],
    )


def _entry(model: "LoggedModel", run_id: str, about: dict[str, Any]) -> Any:
    from mlflow.models import Model

    location = model.artifact_location
    return Model(
        artifact_path=location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id, metadata=about
    )


def enter_model(client: "MlflowClient", run: "Run", result: Result) -> "LoggedModel":
    """Finds or creates the entry of a bundle's model, which may have no files yet."""
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
        model_type="image classifier",
    )


def _copy_scores(client: "MlflowClient", run_id: str, model_id: str) -> None:
    """Shows the finished model's scores beside the model, too; its curves stay with the run."""
    from mlflow.entities import Metric

    scores = {key: value for key, value in client.get_run(run_id).data.metrics.items() if "/" not in key}
    histories = (client.get_metric_history(run_id, key)[-1] for key in scores)
    log(
        client,
        run_id,
        metrics=[
            Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id=model_id) for metric in histories
        ],
    )


def _public_version(package: str) -> str:
    """Without a local part such as `+cpu`, which no index has."""
    return importlib.metadata.version(package).partition("+")[0]
