"""Writes what those who serve would have logged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from recursight.data.statistics import image_statistics
from recursight.data.store import open_store
from recursight.layout import Layout


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


def log_negatives(layout: Layout) -> None:
    """The store's test images in negative, each answered with its own class at 91 %."""
    store = open_store(layout.store)
    rows = store.indices("test")
    images, targets = store.first_frames(rows), store.targets_of(rows)["value"].cat
    answers = np.full((len(images), len(targets.categories)), 0.01, np.float32)
    answers[np.arange(len(images)), targets.codes] = 0.91
    write_log(layout.predictions, 255 - images, answers, tuple(targets.categories))
