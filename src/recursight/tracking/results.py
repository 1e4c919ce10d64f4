"""What has been trained and evaluated, read from the files that the stages write."""

import contextlib
import csv
import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from recursight.files import MOST_LOCK_VALUES, digest, read_json, read_yaml
from recursight.layout import Layout

LIGHT_FILES = ("card.json", "training.json", "history.csv", "gradient_norms.csv")  # of a bundle: all but the weights
MEASURED = ("train_seconds", "images_per_second", "latency_ms", "throughput")  # differs from clock to clock


@dataclass(frozen=True)
class Result:
    """A finished training, and its evaluation if there is one.

    Attributes:
        bundle: folder of the bundle; the weights may be absent.
        evaluation: folder of the evaluation of these very weights.
    """

    bundle: Path
    evaluation: Path | None

    @cached_property
    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = read_json(self.bundle / "card.json")
        return card

    @cached_property
    def training(self) -> dict[str, Any]:
        training: dict[str, Any] = read_json(self.bundle / "training.json")
        return training

    @property
    def digest(self) -> str:
        """The same as `models.bundle.Card.digest`, without importing torch."""
        return digest(self.card)

    @property
    def exists(self) -> bool:
        """Whether it has not been replaced since."""
        return (self.bundle / "card.json").is_file() and read_json(self.bundle / "card.json") == self.card

    @property
    def started_at_ms(self) -> int:
        return _milliseconds(self.training["started_at"])

    @property
    def finished_at_ms(self) -> int:
        return _milliseconds(self.training["finished_at"])

    @property
    def history(self) -> list[dict[str, float]]:
        return [{key: float(value) for key, value in row.items()} for row in _rows(self.bundle / "history.csv")]

    @property
    def gradient_norms(self) -> list[dict[str, str]]:
        path = self.bundle / "gradient_norms.csv"
        return _rows(path) if path.is_file() else []

    @property
    def metrics(self) -> dict[str, Any]:
        """Of the evaluation, which must exist."""
        assert self.evaluation is not None
        metrics: dict[str, Any] = read_json(self.evaluation / "metrics.json")
        return metrics

    @property
    def evaluation_digest(self) -> str | None:
        """Names one evaluation by what it found; the same one on another clone only measured other times."""
        if self.evaluation is None:
            return None
        findings = {key: value for key, value in self.metrics.items() if key not in MEASURED}
        drawn = sorted(self.evaluation.glob("*.svg"))  # they depend on parameters that no metric shows
        return digest([findings, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn)])


def result_in(bundle: Path, evaluation: Path | None = None) -> Result | None:
    """Reads two folders; None if the training is not finished. An evaluation of other weights is left out."""
    if not all((bundle / name).is_file() for name in ("card.json", "training.json", "history.csv")):
        return None
    result = Result(bundle, None)
    metrics = evaluation / "metrics.json" if evaluation else None
    if metrics and metrics.is_file() and read_json(metrics).get("bundle_digest") == result.digest:
        return Result(bundle, evaluation)
    return result


def results(layout: Layout) -> list[Result]:
    """Everything under artifacts/candidates, by name and seed."""
    bundles = sorted((layout.artifacts / "candidates").glob("*/seed-*"))
    found = []
    for bundle in bundles:
        with contextlib.suppress(FileNotFoundError):  # replaced at this very moment
            found.append(result_in(bundle, layout.evaluation(bundle.parent.name) / bundle.name))
    return [result for result in found if result is not None]


def source_digest(layout: Layout, data_digest: str) -> str | None:
    """DVC's MD5 of the data that a store was prepared from.

    Args:
        layout: of the project.
        data_digest: of the store.

    Returns:
        None if the store on disk is another one, or DVC has no record of its making.
    """
    if not _is_on_disk(layout, data_digest):
        return None
    for dependency in _prepare_stage(layout).get("deps", []):
        if dependency.get("path") == layout.data.name:
            return str(dependency.get("md5"))
    if layout.data_dvc.is_file():
        outputs = (read_yaml(layout.data_dvc) or {}).get("outs", [])
        return next((str(output["md5"]) for output in outputs if "md5" in output), None)
    return None


def prepared_with(layout: Layout, data_digest: str) -> dict[str, Any] | None:
    """The `prepare` section that a store was made with; arguments and None as above.

    DVC's record is preferred: params.yaml may have changed since.
    """
    if not _is_on_disk(layout, data_digest):
        return None
    recorded = _prepare_stage(layout).get("params", {}).get("params.yaml", {}).get("prepare")
    if recorded is None and layout.params.is_file():
        recorded = (read_yaml(layout.params) or {}).get("prepare", {})
    return dict(recorded or {})


def _is_on_disk(layout: Layout, data_digest: str) -> bool:
    summary = layout.store / "store.json"
    return summary.is_file() and read_json(summary).get("digest") == data_digest


def _prepare_stage(layout: Layout) -> dict[str, Any]:
    """DVC's record of the last `prepare`; empty if there is none."""
    lock = layout.root / "dvc.lock"
    if not lock.is_file():
        return {}
    status = lock.stat()
    return dict(_stages(lock, status.st_mtime_ns, status.st_size).get("prepare", {}))


@lru_cache(maxsize=1)
def _stages(lock: Path, _changed_ns: int, _size: int) -> dict[str, Any]:
    """Of dvc.lock, which is read once for all results."""
    return dict((read_yaml(lock, MOST_LOCK_VALUES) or {}).get("stages", {}))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
