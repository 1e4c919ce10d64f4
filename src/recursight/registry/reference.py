"""The reference data of a registered version, stored with it because the workspace may have changed since."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from recursight.layout import Layout
from recursight.registry.log import REFERENCE
from recursight.tracking.connection import fluent

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def reference_of_version(layout: Layout, version: "ModelVersion") -> pd.DataFrame | None:
    """See `monitoring.reference`; None if the version was registered without one."""
    with fluent(layout) as mlflow, tempfile.TemporaryDirectory() as folder:
        source = f"models:/{version.name}/{version.version}"
        kept = f"artifacts/{REFERENCE}"
        listed = mlflow.artifacts.list_artifacts(f"{source}/artifacts")
        if all(Path(entry.path).name != REFERENCE for entry in listed):
            return None
        return pd.read_parquet(mlflow.artifacts.download_artifacts(f"{source}/{kept}", dst_path=folder))
