"""Use of the machine during a training, sampled for MLflow's system metrics."""

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"  # of MLflow; here metrics are on unless it is `false`
FIRST = "system/cpu_utilization_percentage"


class Usage:
    """CPU, memory, disk and network of the machine, and GPUs if `nvidia-ml-py` is installed.

    MLflow's own thread ends at the first failing request, so the caller takes the samples.

    Args:
        client: of the store.
        run_id: of the training's run, whose earlier samples are continued.
        uri: of the store.
    """

    def __init__(self, client: "MlflowClient", run_id: str, uri: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor_class: Any = SystemMetricsMonitor
        self._monitor = monitor_class(run_id, tracking_uri=uri)
        self._interval_seconds = float(self._monitor.sampling_interval)
        self._step = max((metric.step for metric in client.get_metric_history(run_id, FIRST)), default=-1) + 1
        self._sampled = False
        self._collect()  # CPU shares are means since the previous sample

    def sample(self, last: bool = False) -> "list[Metric]":
        """A sample, if one is due.

        Args:
            last: whether this is the last call; a run too short for a regular sample then gets this one.
        """
        from mlflow.entities import Metric

        if self.due_seconds and not (last and not self._sampled):
            return []
        values, now = self._collect(), round(time.time() * 1000)
        self._sampled, self._step = True, self._step + 1
        return [Metric(f"system/{key}", float(value), now, self._step - 1) for key, value in values.items()]

    @property
    def due_seconds(self) -> float:
        """Seconds until the next sample."""
        return max(0.0, self._next - time.monotonic())

    def _collect(self) -> dict[str, float]:
        self._monitor.collect_metrics()
        values: dict[str, float] = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        self._next = time.monotonic() + self._interval_seconds
        return values


def usage_of(client: "MlflowClient", run_id: str, uri: str) -> Usage | None:
    """None if it is turned off, or if the system does not allow reading these figures, as in some containers."""
    if os.environ.get(SWITCH, "true").lower() in ("false", "0"):
        return None
    from mlflow.exceptions import MlflowException

    try:
        return Usage(client, run_id, uri)
    except MlflowException:
        raise  # the store, not the system, failed: the caller tries again
    except (OSError, RuntimeError, AttributeError, ValueError):
        return None
