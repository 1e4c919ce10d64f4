"""The figures of one split: every metric of the task, and an interval of the first."""

from typing import TYPE_CHECKING

from recursight.evaluation.significance import bootstrap, interval
from recursight.tasks import Metric, Task
from recursight.tasks.metric import wilson_interval

if TYPE_CHECKING:
    from pandas import DataFrame

RESAMPLES = 2000


def scores(rows: "DataFrame", task: Task, confidence: float) -> dict[str, float]:
    """Summarises one split.

    Args:
        rows: of `Task.score`.
        task: what was asked.
        confidence: of the interval.

    Returns:
        count, every metric by name, and the task's first one with _low and _high: by Wilson where each example is right
        or wrong, else by the bootstrap.
    """
    first = task.default
    values: dict[str, float] = {"count": len(rows)}
    for name, metric in task.metrics.items():
        values[name] = metric.value(rows)
        if name == first.name:
            values[f"{name}_low"], values[f"{name}_high"] = _interval(metric, values[name], rows, confidence)
    return values


def _interval(metric: Metric, value: float, rows: "DataFrame", confidence: float) -> tuple[float, float]:
    if metric.right:
        return wilson_interval(value * len(rows), len(rows), confidence)
    return interval(bootstrap([[rows]], [metric], samples=RESAMPLES, seed=0)[metric.name][0], confidence)
