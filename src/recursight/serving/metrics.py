"""Figures for Prometheus."""

from collections.abc import Mapping

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, Summary, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server; each server has its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        self.requests = Counter("recursight_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "recursight_request_seconds", "From a request's head to the end of its answer.", ["path"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_images = Histogram(
            "recursight_batch_images",
            "Images in one batch of the model.",
            buckets=IMAGES,
            registry=registry,
        )
        self.model_seconds = Summary("recursight_model_seconds", "Time of the model for a batch.", registry=registry)
        self.predictions = Counter(
            "recursight_predictions", "Images by what was predicted.", ["predicted"], registry=registry
        )
        self.at_work = Gauge("recursight_requests_at_work", "Requests being answered.", registry=registry)
        self.version = Gauge("recursight_model_version", "The version in production.", ["model"], registry=registry)
        self.loads = Counter("recursight_model_loads", "Champions that were loaded.", ["outcome"], registry=registry)
        self.registry_answers = Gauge(
            "recursight_registry_answers", "Whether MLflow answered the last request.", registry=registry
        )
        self.unlogged = Gauge(
            "recursight_log_dropped_rows", "Predictions that are missing in the log.", registry=registry
        )
        self.registry_answers.set(1)

    def serve(self, model: str, version: int) -> None:
        self.version.labels(model).set(version)

    def count(self, summary: Mapping[str, np.ndarray], images: int) -> None:
        """Counts predictions: by category, if the task's summary has such a column `predicted`."""
        values = summary.get("predicted", np.empty(0))
        names, counts = np.unique(values, return_counts=True) if values.dtype == object else ([""], [images])
        for name, count in zip(names, counts, strict=True):
            self.predictions.labels(name).inc(int(count))

    def text(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)
