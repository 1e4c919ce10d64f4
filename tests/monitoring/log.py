"""Writes what those who serve would have logged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from recursight.data.statistics import image_statistics


def write_log(
    folder: Path,
    images: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    *,
    version: int = 1,
    model: str = "recursight",
    hours_ago: float = 1,
) -> Path:
    """One parquet part of `.recursight/predictions`."""
    count = len(images)
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    columns = {
        "time": pd.Series([at] * count).astype("datetime64[us, UTC]"),
        "source": ["serve"] * count,
        "model": [model] * count,
        "version": np.full(count, version, np.int32),
        "predicted": [classes[place] for place in probabilities.argmax(axis=1)],
        "confidence": probabilities.max(axis=1).astype(np.float32),
        "probabilities": list(probabilities.astype(np.float32)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{at:%Y%m%dT%H%M%S.%f}-{len(list(folder.iterdir()))}.parquet"
    pd.DataFrame(columns | image_statistics(images)).to_parquet(path, index=False)
    return path
