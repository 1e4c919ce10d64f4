"""Candidates side by side: ranked on the validation split, reported on the test split.

Choosing the best of many on the very examples that its score is then reported on makes that score too high. So the
validation split chooses, and the test split, which had no say, shows how good the choice is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from recursight.data.records import EVALUATED
from recursight.evaluation.improvement import bootstrap_better
from recursight.evaluation.significance import bootstrap, holm, interval, mcnemar, metric_interval
from recursight.tasks import Metric

if TYPE_CHECKING:
    from pandas import DataFrame

COSTS = ("parameters", "train_seconds", "images_per_second", "latency_ms", "throughput")
SHOWN = 3  # metrics that tables show: the one that ranks, and the first others of the task


@dataclass(frozen=True)
class Entrant:
    """One candidate as it was evaluated.

    Attributes:
        name: in params.yaml.
        seeds: it was trained once for each.
        metrics: the content of metrics.json, per seed.
        rows: per split and seed, of `Task.score`.
    """

    name: str
    seeds: list[int]
    metrics: list[dict[str, Any]]
    rows: "Mapping[str, Sequence[DataFrame]]"


@dataclass(frozen=True)
class Comparison:
    """The outcome; the content of comparison.json.

    Attributes:
        winner: name of the candidate that is best on validation.
        winner_seed: the best of its trainings on validation.
        metric: what ranked them.
        metrics: what tables show, the ranking one first: name, title, share and higher_is_better of each.
        exact: whether differences were tested exactly, by McNemar's test, or else by paired bootstrap.
        confidence: of every interval.
        ranking: one row per candidate, best first; see `compare`.
    """

    winner: str
    winner_seed: int
    metric: str
    metrics: list[dict[str, Any]]
    exact: bool
    confidence: float
    ranking: list[dict[str, Any]]


def compare(
    entrants: Sequence[Entrant],
    metrics: Mapping[str, Metric],
    *,
    metric: Metric,
    samples: int,
    confidence: float,
    seed: int,
) -> Comparison:
    """Ranks candidates and says how sure the ranking is.

    Candidates equal in the metric are ranked by the task's other metrics on validation in their order, then by fewer
    parameters, then by name.

    Args:
        entrants: the candidates.
        metrics: of the task.
        metric: one of them; its mean over seeds on validation ranks.
        samples: resamples behind each interval.
        confidence: of the intervals; one minus it is the level of the tests.
        seed: of the resampling.

    Returns:
        Rows with the keys rank, candidate, verdict, seeds; validation_NAME and test_NAME for each metric, with _low and
        _high for the ranking one, and on test for all that tables show; test_deviation (standard, of the ranking
        metric over seeds; None for one); difference (in the ranking metric on test, from the winner), difference_low,
        difference_high, p_value, p_holm; parameters, train_seconds, images_per_second (in training), latency_ms,
        latency_on (device and threads), throughput.
        The verdict is `winner`, `tied` (with the winner: what differs can be chance), `worse`, or `better on test`.
        What has no meaning for the winner is None.
    """
    order = [metric, *(other for other in metrics.values() if other.name != metric.name)]
    ordered = sorted(entrants, key=lambda entrant: _merit(entrant, order))
    winner = ordered[0]
    shown = order[:SHOWN]
    intervals_of = {"validation": [metric], "test": shown}
    resampled = {
        split: bootstrap([entrant.rows[split] for entrant in ordered], intervals_of[split], samples=samples, seed=seed)
        for split in EVALUATED
    }
    p_values = _p_values(ordered, metric, resampled["test"][metric.name])
    tests = [(None, None), *zip(p_values, holm(p_values), strict=True)]
    ranking: list[dict[str, Any]] = []
    for index, entrant in enumerate(ordered):
        row: dict[str, Any] = {"rank": index + 1, "candidate": entrant.name, "verdict": "", "seeds": len(entrant.seeds)}
        for split in EVALUATED:
            count = len(entrant.rows[split][0])
            for one in order:
                row[f"{split}_{one.name}"] = value = _mean(entrant, one.name, split)
                if one in intervals_of[split]:
                    bounds = metric_interval(one, value, resampled[split][one.name][index], count, confidence)
                    row[f"{split}_{one.name}_low"], row[f"{split}_{one.name}_high"] = bounds
        of_seeds = [figures["test"][metric.name] for figures in entrant.metrics]
        row["test_deviation"] = stdev(of_seeds) if len(of_seeds) > 1 else None
        row |= _difference(metric, row, ranking, resampled["test"][metric.name], confidence)
        row["p_value"], row["p_holm"] = tests[index]
        row["verdict"] = _verdict(row, metric, 1 - confidence)
        row |= {key: _mean(entrant, key) for key in COSTS} | {"latency_on": entrant.metrics[0]["latency_on"]}
        ranking.append(row)
    described = [
        {"name": one.name, "title": one.title, "share": one.share, "higher_is_better": one.higher_is_better}
        for one in shown
    ]
    best_seed = _best_seed(winner, order)
    return Comparison(winner.name, best_seed, metric.name, described, bool(metric.right), confidence, ranking)


def _p_values(ordered: Sequence[Entrant], metric: Metric, resampled: np.ndarray) -> list[float]:
    """Of each candidate but the first, against the first, two-sided."""
    if metric.right:
        right = [np.stack([rows[metric.right].to_numpy() for rows in entrant.rows["test"]]) for entrant in ordered]
        return [mcnemar(right[0], other) for other in right[1:]]
    values = [_mean(entrant, metric.name, "test") for entrant in ordered]
    return [
        min(1.0, 2 * bootstrap_better(abs(value - values[0]), np.sign(value - values[0]) * (other - resampled[0])))
        for value, other in zip(values[1:], resampled[1:], strict=True)
    ]


def _mean(entrant: Entrant, key: str, split: str | None = None) -> float:
    """Mean over seeds of one figure of metrics.json; whole where all are whole and equal."""
    values: list[float] = [(figures[split] if split else figures)[key] for figures in entrant.metrics]
    return values[0] if len(set(values)) == 1 else fmean(values)


def _merit(entrant: Entrant, order: Sequence[Metric]) -> tuple[Any, ...]:
    """Sorts the best first. Rounded, so that the order in which floats were summed does not decide."""
    values = [metric.gain(0, round(_mean(entrant, metric.name, "validation"), 10)) for metric in order]
    return *values, _mean(entrant, "parameters"), entrant.name


def _best_seed(entrant: Entrant, order: Sequence[Metric]) -> int:
    trainings = [
        Entrant(entrant.name, [seed], [figures], {})
        for seed, figures in zip(entrant.seeds, entrant.metrics, strict=True)
    ]
    return min(trainings, key=lambda training: _merit(training, order)).seeds[0]


def _difference(
    metric: Metric, row: dict[str, Any], ranking: list[dict[str, Any]], resampled: np.ndarray, confidence: float
) -> dict[str, float | None]:
    """From the winner, which is the ranking's first row; None for the winner itself."""
    if not ranking:
        return {"difference": None, "difference_low": None, "difference_high": None}
    low, high = interval(resampled[len(ranking)] - resampled[0], confidence)
    key = f"test_{metric.name}"
    return {"difference": row[key] - ranking[0][key], "difference_low": low, "difference_high": high}


def _verdict(row: dict[str, Any], metric: Metric, level: float) -> str:
    if row["p_holm"] is None:
        return "winner"
    if row["p_holm"] >= level:
        return "tied"
    return "worse" if metric.gain(row["difference"], 0) < 0 else "better on test"
