"""The reference for drift: the inputs and answers of a model on images that it had never seen.

That is the test split. On training images a network is surer than it will ever be again, and validation images have
chosen its weights; with either, everyday images would look like drift.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recursight.files import read_json
from recursight.tasks import Task


def reference_of(store: Path, evaluation: Path, task: Task, vocabulary: Sequence[str]) -> pd.DataFrame | None:
    """One row an example of the test split: the columns of `Task.summary`, and one for each figure of the image.

    Args:
        store: folder that `prepare` made.
        evaluation: folder that `evaluate` made, of the model.
        task: of the model.
        vocabulary: of the model.

    Returns:
        None if the store is not the one that was evaluated.
    """
    if read_json(store / "store.json")["digest"] != read_json(evaluation / "metrics.json")["data_digest"]:
        return None
    tested = pd.read_parquet(store / "examples.parquet", columns=["split"])["split"] == "test"
    statistics = pd.read_parquet(store / "statistics.parquet")[tested.to_numpy()].reset_index(drop=True)
    rows = pd.read_parquet(evaluation / "predictions.parquet", columns=["split", "answer"])
    answers = np.stack(rows.loc[rows["split"] == "test", "answer"].to_list())
    reference: pd.DataFrame = pd.concat([task.summary(answers, vocabulary), statistics], axis=1)
    return reference
