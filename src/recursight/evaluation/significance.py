"""Is a difference between two candidates more than chance? Intervals and paired tests over the same examples."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recursight.tasks import Metric
from recursight.tasks.metric import wilson_interval

if TYPE_CHECKING:
    from pandas import DataFrame

CELLS_AT_ONCE = 4_000_000  # of one block of resamples; 32 MB


def bootstrap(
    rows: "Sequence[Sequence[DataFrame]]", metrics: Sequence[Metric], *, samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Paired bootstrap (Efron, 1979): every candidate is scored on the same resamples of the examples.

    A candidate trained with several seeds is scored by its mean over seeds, and the seeds are drawn anew with
    replacement for each resample, so that the spread holds both sources of chance: which examples, and which training.
    With few seeds that understates the second one; with one seed it holds nothing of it.

    Args:
        rows: per candidate and seed, rows of `Task.score` for the same N examples.
        metrics: of the task.
        samples: how many resamples.
        seed: of the drawing; the same one gives the same resamples.

    Returns:
        By metric name: candidates × resamples.
    """
    generator = np.random.default_rng(seed)
    found = {metric.name: np.empty((len(rows), samples)) for metric in metrics}
    done = 0
    for draws in draws_of(generator, len(rows[0][0]), samples):
        block = slice(done, done + draws.shape[1])
        done = block.stop
        for index, trainings in enumerate(rows):
            shares = _seeds(generator, len(trainings), draws.shape[1])
            for metric in metrics:
                values = np.stack([metric.resampled(training, draws) for training in trainings])
                found[metric.name][index, block] = (values * shares).sum(axis=0)
    return found


def draws_of(generator: np.random.Generator, count: int, samples: int) -> Iterator[np.ndarray]:
    """Counts of each example in each resample, N × block, in blocks that fit into memory."""
    size = max(1, CELLS_AT_ONCE // count)
    for start in range(0, samples, size):
        width = min(size, samples - start)
        drawn = generator.integers(0, count, size=(count, width))
        flat = np.bincount((drawn * width + np.arange(width)).ravel(), minlength=count * width)
        yield flat.reshape(count, width).astype(np.float64)


def _seeds(generator: np.random.Generator, seeds: int, width: int) -> np.ndarray:
    """Share of each seed in each resample, S × block; columns sum to one."""
    if seeds == 1:
        return np.ones((1, width))
    return generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=width).T / seeds


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The middle part of resampled values that holds `confidence` of them (percentile bootstrap)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def metric_interval(
    metric: Metric, value: float, resampled: np.ndarray, count: int, confidence: float
) -> tuple[float, float]:
    """Percentile bootstrap; for a share of right examples widened to Wilson's interval where that is wider.

    Resampling cannot draw a mistake that was never made, so near 100 % the bootstrap alone promises too much: without
    any mistake it would be a point.

    Args:
        metric: what was resampled.
        value: of the examples as they are.
        resampled: values of the resamples.
        count: of the examples.
        confidence: of the interval.
    """
    low, high = interval(resampled, confidence)
    if metric.right:
        wilson_low, wilson_high = wilson_interval(value * count, count, confidence)
        low, high = min(low, wilson_low), max(high, wilson_high)
    return low, high


def _lead(first: np.ndarray, second: np.ndarray) -> float:
    """The probability that the first one leads by so much, or more, by chance."""
    from scipy.special import bdtr  # the binomial distribution, without half a second of scipy.stats

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    return float(bdtr(only_second, only_first + only_second, 0.5))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact paired test (McNemar, 1947): is one candidate right where the other is wrong more often than chance?

    The test of choice for two trained classifiers and one test set (Dietterich, 1998, doi:10.1162/089976698300017197).
    Examples on which both are right or both are wrong say nothing; each of the others is a fair coin if the two are
    equally good, so the two-sided binomial probability is exact at any number of them.

    With several seeds it is twice the median over pairs of seeds. The pairs' p-values depend on each other, since all
    use the same examples, so they must not be combined as if they were independent. Twice their median is a valid
    p-value however they depend (Rüger, 1978; Meinshausen, Meier and Bühlmann, 2009, arXiv:0811.2177), and one lucky
    training does not decide it. All pairs are tested in one direction, that of the mean: pairs that are far apart in
    opposite directions show no difference.

    Args:
        first: S × N booleans; row s is paired with row s of the second.
        second: S × N booleans.

    Returns:
        The probability of a difference at least this large by chance; 1 where they never differ.
    """
    if first.sum() < second.sum():
        first, second = second, first
    chances = [_lead(one, other) for one, other in zip(first, second, strict=True)]
    either_way = 2 * float(np.median(chances))
    return min(1.0, either_way if len(chances) == 1 else 2 * either_way)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for several tests at once (Holm, 1979), in their order.

    The chance of even one false alarm among all of them is then at most the level at which they are judged.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
