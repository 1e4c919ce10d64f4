"""Answers as columns of parquet files."""

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from recursight.registry.loading import LoadedVersion

if TYPE_CHECKING:
    import pyarrow as pa


def answer_columns(model: LoadedVersion, answers: np.ndarray) -> "dict[str, pa.Array]":
    """Columns of the task's summary, the whole answers (flat lists, in a column named by the task), model, version."""
    import pyarrow as pa

    count, width = len(answers), prod(answers.shape[1:])
    offsets = np.arange(0, count * width + 1, width, dtype=np.int32)
    summary = model.task.rendering.summary(answers, model.vocabulary)
    return {
        **{name: pa.array(values, pa.string() if values.dtype == object else None) for name, values in summary.items()},
        model.task.answer_column: pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(answers.astype(np.float32).ravel())
        ),
        "model": pa.repeat(pa.scalar(model.name, pa.string()), count),
        "version": pa.array(np.full(count, model.version, np.int32)),
    }
