"""The reference: what a model was asked, and answered, on images that it had never seen.

That is the test split. On training images a network is surer than it will ever be again, and validation images have
chosen its weights; both would make everyday images look like drift.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from recursight.files import read_json

PREDICTED, CONFIDENCE = "predicted", "confidence"


def reference_of(store: Path, evaluation: Path) -> pd.DataFrame | None:
    """One row per image of the test split: `predicted`, `confidence`, and a column for each figure of the image.

    Args:
        store: folder that `prepare` made.
        evaluation: folder that `evaluate` made, of the model.

    Returns:
        None if the store is another one than was evaluated, or was made before stores had statistics.
    """
    if not (store / "statistics.parquet").is_file():
        return None
    if read_json(store / "store.json")["digest"] != read_json(evaluation / "metrics.json")["data_digest"]:
        return None
    tested = pq.read_table(store / "manifest.parquet", columns=["split"])["split"].to_numpy() == "test"
    statistics = pd.read_parquet(store / "statistics.parquet")[tested].reset_index(drop=True)
    answers = pq.read_table(evaluation / "predictions.parquet", filters=[("split", "=", "test")])
    probabilities = answers["probabilities"].combine_chunks()
    by_class = probabilities.flatten().to_numpy(zero_copy_only=False).reshape(len(answers), -1)
    said = {PREDICTED: answers["predicted"].to_pandas(), CONFIDENCE: by_class.max(axis=1).astype(np.float32)}
    reference: pd.DataFrame = pd.concat([pd.DataFrame(said), statistics], axis=1)
    return reference
