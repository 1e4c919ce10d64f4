"""Metrics: how the scores of single examples become one figure, for the examples as they are and for resamples."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Metric:
    """One figure over many examples.

    Attributes:
        name: its key in `Task.metrics`, params.yaml and result files.
        title: for people, such as `macro F1`.
        value: the figure, from the rows of `Task.score`.
        resampled: from the same rows and the counts of each example in each resample (N × S), the figure of each
            resample (S). Every resample draws N examples.
        higher_is_better: whether a larger figure is the better one.
        share: whether it is a proportion, which people read in percent.
        right: the boolean column of the rows whose mean the metric is; empty where an example is more than right or
            wrong. With it differences are tested exactly (McNemar) and intervals are never narrower than Wilson's.
        detail: what people want to know beside the figure, such as which class is the worst.
    """

    name: str
    title: str
    value: "Callable[[DataFrame], float]"
    resampled: "Callable[[DataFrame, np.ndarray], np.ndarray]"
    higher_is_better: bool = True
    share: bool = False
    right: str = ""
    detail: "Callable[[DataFrame], str] | None" = None

    def text(self, value: float) -> str:
        """The figure for people: `97.22 %`, or `0.0913` where it is no share."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.4g}"

    def gain(self, new: float, old: float) -> float:
        """How much better the new figure is than the old one; below 0 if it is worse."""
        return new - old if self.higher_is_better else old - new

    def reaches(self, value: float, minimum: float) -> bool:
        """Whether a figure is at least as good as required."""
        return self.gain(value, minimum) >= 0


def mean_of(column: str, *, name: str, title: str, higher_is_better: bool = True, share: bool = False) -> Metric:
    """The mean of a column of scores. A column of booleans is a share of right answers, and is tested exactly."""

    def value(rows: "DataFrame") -> float:
        return float(rows[column].to_numpy().mean())

    def resampled(rows: "DataFrame", draws: np.ndarray) -> np.ndarray:
        means: np.ndarray = rows[column].to_numpy(dtype=np.float64) @ draws / len(rows)
        return means

    return Metric(name, title, value, resampled, higher_is_better, share)


def share_of(column: str, *, name: str, title: str) -> Metric:
    """The share of examples with True in a column, each of which is right or wrong."""
    mean = mean_of(column, name=name, title=title, share=True)
    return Metric(name, title, mean.value, mean.resampled, share=True, right=column)


def wilson_interval(successes: float, count: int, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, 1927); sensible at 0 and 1 too, where others collapse to a point."""
    share = successes / count
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
