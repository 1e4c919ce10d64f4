"""Is a challenger better than a champion, or at least not worse? One-sided paired tests over the same test images.

Each returns the probability of evidence this strong if the challenger were *not* better (or were worse by the margin).
A decision at some level is then wrong at most that often, for any such challenger.
"""

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from recursight.evaluation.significance import draws_of
from recursight.tasks import Metric

if TYPE_CHECKING:
    from pandas import DataFrame

NORMAL = NormalDist()


def mcnemar_better(champion: np.ndarray, challenger: np.ndarray) -> float:
    """Exact one-sided test of McNemar (1947): is the challenger right where the champion is wrong more than vice versa?

    If the two were equally accurate, each image on which only one of them is right would be a fair coin. If the
    challenger were worse, the coin would favour the champion, so that the binomial tail bounds the error for it too.

    Args:
        champion: N booleans, whether it is right.
        challenger: N booleans, whether it is right.
    """
    from scipy.special import bdtr

    gained = int((challenger & ~champion).sum())
    lost = int((champion & ~challenger).sum())
    return float(bdtr(lost, gained + lost, 0.5)) if gained > lost else 1.0


def share_not_worse(champion: np.ndarray, challenger: np.ndarray, margin: float) -> float:
    """Score test for non-inferiority of paired proportions (Tango, 1998, Statistics in Medicine 17:891-908).

    Its hypothesis is that the challenger's share of right examples is lower by `margin` or more. "No significant
    difference" would prove nothing: a small test split never shows one. With a margin of zero it is McNemar's test,
    without exactness.

    Args:
        champion: N booleans, whether it is right.
        challenger: N booleans, whether it is right.
        margin: above 0.
    """
    count = len(champion)
    gained = int((challenger & ~champion).sum())
    lost = int((champion & ~challenger).sum())
    # The likeliest share of "lost" images if the difference is exactly -margin: the root of a quadratic (Tango's q21).
    linear = -gained - lost - (2 * count - gained + lost) * margin
    constant = lost * margin * (1 + margin)
    share = ((linear**2 - 8 * count * constant) ** 0.5 - linear) / (4 * count)
    spread = (count * (2 * share - margin * (1 + margin))) ** 0.5
    return NORMAL.cdf(-(gained - lost + count * margin) / spread)


def gain_resamples(
    metric: Metric, champion: "DataFrame", challenger: "DataFrame", *, samples: int, seed: int
) -> np.ndarray:
    """How much better the challenger is on resamples of the examples; paired bootstrap (Efron, 1979).

    Args:
        metric: that compares the two.
        champion: rows of `Task.score`, one an example.
        challenger: rows of the same examples.
        samples: how many resamples.
        seed: of the drawing.
    """
    sign = 1 if metric.higher_is_better else -1
    parts = [
        sign * (metric.resampled(challenger, draws) - metric.resampled(champion, draws))
        for draws in draws_of(np.random.default_rng(seed), len(champion), samples)
    ]
    return np.concatenate(parts)


def bootstrap_better(gain: float, resampled: np.ndarray, margin: float = 0.0) -> float:
    """The larger of two bootstrap p-values (Efron and Tibshirani, 1993, chapters 13 and 16).

    The share of resamples without a gain needs no shape of the distribution, but is 0 below one over their number.
    The normal tail with the bootstrap's standard error reaches levels that no number of resamples does.

    Args:
        gain: of the challenger over the champion, on the images as they are.
        resampled: the same on each resample.
        margin: a loss below which counts as none.
    """
    if gain + margin <= 0:
        return 1.0
    spread = float(resampled.std(ddof=1))
    tail = NORMAL.cdf(-(gain + margin) / spread) if spread > 0 else 0.0
    return max(float((resampled + margin <= 0).mean()), tail)
