"""Candidates side by side: ranked on the validation split, reported on the test split.

Choosing the best of many on the very images that its score is then reported on makes that score too high. So the
validation split chooses, and the test split, which had no say, tells how good the choice is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from recursight.evaluation.significance import (
    Resampled,
    bootstrap,
    holm,
    interval,
    mcnemar_over_seeds,
    wilson_interval,
)

HIGHER_IS_BETTER = {"accuracy": True, "macro_f1": True, "log_loss": False}
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Entrant:
    """One candidate as it was evaluated.

    Attributes:
        name: in params.yaml.
        seeds: it was trained once for each.
        metrics: the content of metrics.json, per seed.
        predicted: per split, labels, S × N.
    """

    name: str
    seeds: list[int]
    metrics: list[dict[str, Any]]
    predicted: dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    Attributes:
        winner: name of the candidate that is best on validation.
        winner_seed: the best of its trainings on validation.
        metric: what ranked them.
        confidence: of every interval.
        ranking: one row per candidate, best first; see `compare`.
    """

    winner: str
    winner_seed: int
    metric: str
    confidence: float
    ranking: list[dict[str, Any]]


def compare(
    entrants: Sequence[Entrant],
    actual: dict[str, np.ndarray],
    *,
    classes: int,
    metric: str,
    samples: int,
    confidence: float,
    seed: int,
) -> Comparison:
    """Ranks candidates and says how sure the ranking is.

    Candidates equal in the metric are ranked by log loss on validation, then by fewer parameters, then by name.

    Args:
        entrants: the candidates.
        actual: per split, labels, N, in the order of the entrants' predictions.
        classes: how many there are.
        metric: accuracy, macro_f1 or log_loss; the mean over seeds on validation counts.
        samples: resamples behind each interval.
        confidence: of the intervals; one minus it is the level of the tests.
        seed: of the resampling.

    Returns:
        Rows with the keys rank, candidate, verdict, seeds, validation_accuracy, validation_low, validation_high,
        validation_macro_f1, validation_log_loss, test_accuracy, test_low, test_high, test_deviation (standard, over
        seeds; None for one), macro_f1, macro_f1_low, macro_f1_high, log_loss, difference (in test accuracy, from the
        winner), difference_low, difference_high, p_value (McNemar), p_holm, parameters, train_seconds,
        images_per_second (in training), latency_ms, throughput.
        The verdict is `winner`, `tied` (with the winner: what differs can be chance), `worse`, or `better on test`.
        What has no meaning for the winner is None.
    """
    ordered = sorted(entrants, key=lambda entrant: _merit(entrant, metric))
    winner = ordered[0]
    resampled = {
        split: bootstrap(
            actual[split],
            [entrant.predicted[split] for entrant in ordered],
            classes=classes,
            samples=samples,
            seed=seed,
        )
        for split in SPLITS
    }
    right = [entrant.predicted["test"] == actual["test"] for entrant in ordered]
    p_values = [mcnemar_over_seeds(right[0], other) for other in right[1:]]
    tests = [(None, None), *zip(p_values, holm(p_values), strict=True)]
    ranking: list[dict[str, Any]] = []
    for index, entrant in enumerate(ordered):
        row = {"rank": index + 1, "candidate": entrant.name, "verdict": "", "seeds": len(entrant.seeds)}
        row |= _scores(entrant, resampled, index, len(actual["validation"]), len(actual["test"]), confidence)
        row |= _difference(row, ranking[0] if ranking else row, resampled["test"].accuracy, index, confidence)
        row["p_value"], row["p_holm"] = tests[index]
        row["verdict"] = _verdict(row, 1 - confidence)
        row |= {key: _mean(entrant, key) for key in _COSTS}
        ranking.append(row)
    return Comparison(winner.name, _best_seed(winner, metric), metric, confidence, ranking)


_COSTS = ("parameters", "train_seconds", "images_per_second", "latency_ms", "throughput")


def _mean(entrant: Entrant, key: str, split: str | None = None) -> float:
    """Mean over seeds of one figure of metrics.json; whole where all are whole and equal."""
    values: list[float] = [(figures[split] if split else figures)[key] for figures in entrant.metrics]
    return values[0] if len(set(values)) == 1 else fmean(values)


def _merit(entrant: Entrant, metric: str) -> tuple[float, float, float, str]:
    """Sorts the best first. Rounded, so that the order in which floats were summed does not decide."""
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    value, loss = (round(_mean(entrant, key, "validation"), 10) for key in (metric, "log_loss"))
    return sign * value, loss, _mean(entrant, "parameters"), entrant.name


def _best_seed(entrant: Entrant, metric: str) -> int:
    trainings = [
        Entrant(entrant.name, [seed], [figures], {})
        for seed, figures in zip(entrant.seeds, entrant.metrics, strict=True)
    ]
    return min(trainings, key=lambda training: _merit(training, metric)).seeds[0]


def _scores(
    entrant: Entrant, resampled: dict[str, Resampled], index: int, validation: int, test: int, confidence: float
) -> dict[str, Any]:
    accuracy = {split: _mean(entrant, "accuracy", split) for split in SPLITS}
    bounds = {
        split: accuracy_interval(accuracy[split], resampled[split].accuracy[index], count, confidence)
        for split, count in zip(SPLITS, (validation, test), strict=True)
    }
    f1_low, f1_high = interval(resampled["test"].macro_f1[index], confidence)
    tests = [figures["test"]["accuracy"] for figures in entrant.metrics]
    return {
        "validation_accuracy": accuracy["validation"],
        "validation_low": bounds["validation"][0],
        "validation_high": bounds["validation"][1],
        "validation_macro_f1": _mean(entrant, "macro_f1", "validation"),
        "validation_log_loss": _mean(entrant, "log_loss", "validation"),
        "test_accuracy": accuracy["test"],
        "test_low": bounds["test"][0],
        "test_high": bounds["test"][1],
        "test_deviation": stdev(tests) if len(tests) > 1 else None,
        "macro_f1": _mean(entrant, "macro_f1", "test"),
        "macro_f1_low": f1_low,
        "macro_f1_high": f1_high,
        "log_loss": _mean(entrant, "log_loss", "test"),
    }


def accuracy_interval(accuracy: float, resampled: np.ndarray, count: int, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap, widened to Wilson's interval where that is wider.

    Resampling cannot draw a mistake that was never made, so near 100 % the bootstrap alone promises too much: without
    any mistake it would be a point.
    """
    low, high = interval(resampled, confidence)
    wilson_low, wilson_high = wilson_interval(accuracy * count, count, confidence)
    return min(low, wilson_low), max(high, wilson_high)


def _difference(
    row: dict[str, Any], winner: dict[str, Any], accuracy: np.ndarray, index: int, confidence: float
) -> dict[str, float | None]:
    if index == 0:
        return {"difference": None, "difference_low": None, "difference_high": None}
    low, high = interval(accuracy[index] - accuracy[0], confidence)
    return {
        "difference": row["test_accuracy"] - winner["test_accuracy"],
        "difference_low": low,
        "difference_high": high,
    }


def _verdict(row: dict[str, Any], level: float) -> str:
    if row["p_holm"] is None:
        return "winner"
    if row["p_holm"] >= level:
        return "tied"
    return "worse" if row["difference"] < 0 else "better on test"
