"""The reference data of a registered version, stored with it because the workspace may have changed since."""

from typing import TYPE_CHECKING

import pandas as pd

from recursight.layout import Layout
from recursight.registry.loading import files_of
from recursight.registry.log import REFERENCE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def reference_of_version(layout: Layout, version: "ModelVersion") -> pd.DataFrame | None:
    """See `monitoring.reference`; None if the version was registered without one.

    Raises:
        Unreadable: if the version's files cannot be read, or are not those that were registered.
    """
    with files_of(layout, version.name, int(version.version)) as artifacts:
        path = artifacts / REFERENCE
        return pd.read_parquet(path) if path.is_file() else None
