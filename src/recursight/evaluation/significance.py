"""Is a difference between two classifiers more than chance? Intervals and paired tests over the same test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CELLS_AT_ONCE = 4_000_000  # of one block of resamples; 32 MB


@dataclass(frozen=True)
class Resampled:
    """What each candidate would have scored on other samples of images (and of seeds).

    Attributes:
        accuracy: candidates × resamples.
        macro_f1: candidates × resamples.
    """

    accuracy: np.ndarray
    macro_f1: np.ndarray


def bootstrap(
    actual: np.ndarray, predicted: Sequence[np.ndarray], *, classes: int, samples: int, seed: int
) -> Resampled:
    """Paired bootstrap (Efron, 1979): every candidate is scored on the same resamples of the images.

    A candidate trained with several seeds is scored by its mean over seeds, and the seeds are drawn anew with
    replacement for each resample, so that the spread holds both sources of chance: which images, and which training.
    With few seeds that understates the second one; with one seed it holds nothing of it.

    Args:
        actual: labels, N.
        predicted: per candidate, labels, S × N.
        classes: how many there are.
        samples: how many resamples.
        seed: of the drawing; the same one gives the same resamples.
    """
    from scipy import sparse

    def by_class(labels: np.ndarray, counted: np.ndarray) -> "sparse.csr_matrix":
        """K × N: one where an image has the label and is counted."""
        columns = np.flatnonzero(counted)
        return sparse.csr_matrix((np.ones(len(columns)), (labels[columns], columns)), shape=(classes, len(labels)))

    everything = np.ones(len(actual), dtype=bool)
    occurring = by_class(actual, everything)
    hits = [[by_class(row, row == actual) for row in rows] for rows in predicted]
    claims = [[by_class(row, everything) for row in rows] for rows in predicted]
    generator = np.random.default_rng(seed)
    accuracy = np.empty((len(predicted), samples))
    macro_f1 = np.empty((len(predicted), samples))
    done = 0
    for weights in _blocks(generator, len(actual), samples):
        block = slice(done, done + weights.shape[1])
        done = block.stop
        present = occurring @ weights
        for index, rows in enumerate(predicted):
            drawn = _seeds(generator, len(rows), weights.shape[1])
            right = [matrix @ weights for matrix in hits[index]]
            accuracy[index, block] = _over_seeds([hit.sum(axis=0) / len(actual) for hit in right], drawn)
            f1 = [_macro_f1(hit, present, claim @ weights) for hit, claim in zip(right, claims[index], strict=True)]
            macro_f1[index, block] = _over_seeds(f1, drawn)
    return Resampled(accuracy, macro_f1)


def _blocks(generator: np.random.Generator, count: int, samples: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, N × block, in blocks that fit into memory."""
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


def _over_seeds(values: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    mean: np.ndarray = (np.stack(values) * shares).sum(axis=0)
    return mean


def _macro_f1(hits: np.ndarray, present: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Mean of 2·hits / (present + claimed) over the classes that occur or are predicted; K × B in, B out."""
    total = present + claimed
    known = total > 0
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=known)
    mean: np.ndarray = f1.sum(axis=0) / known.sum(axis=0)
    return mean


def wilson_interval(successes: float, count: int, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, 1927); sensible at 0 and 1 too, where others collapse to a point."""
    share = successes / count
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The middle part of resampled values that holds `confidence` of them (percentile bootstrap)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact paired test (McNemar, 1947): is one classifier right where the other is wrong more often than chance?

    The test of choice for two trained classifiers and one test set (Dietterich, 1998, doi:10.1162/089976698300017197).
    Images on which both are right or both are wrong say nothing; each of the others is a fair coin if the two are
    equally good, so the two-sided binomial probability is exact at any number of them.

    Args:
        first: N booleans, whether the first one is right.
        second: likewise.

    Returns:
        The probability of a difference at least this large by chance; 1 where they never differ.
    """
    return min(1.0, 2 * min(_lead(first, second), _lead(second, first)))


def _lead(first: np.ndarray, second: np.ndarray) -> float:
    """The probability that the first one leads by so much, or more, by chance."""
    from scipy.special import bdtr  # the binomial distribution, without half a second of scipy.stats

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    return float(bdtr(only_second, only_first + only_second, 0.5))


def mcnemar_over_seeds(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's test for candidates that were trained several times: twice the median over pairs of seeds.

    The p-values of the pairs hang together, since all use the same images, so they must not be combined as if they
    were independent. Twice their median is a valid p-value however they depend on each other (Rüger, 1978;
    Meinshausen, Meier and Bühlmann, 2009, arXiv:0811.2177), and one lucky training does not decide it. All pairs are
    asked about one direction, that of the mean: pairs that are far apart in opposite directions show no difference.

    Args:
        first: S × N booleans; row s is paired with row s of the second.
        second: likewise.
    """
    if first.sum() < second.sum():
        first, second = second, first
    chances = [_lead(one, other) for one, other in zip(first, second, strict=True)]
    either_way = 2 * float(np.median(chances))
    return min(1.0, either_way if len(chances) == 1 else 2 * either_way)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for having asked several questions at once (Holm, 1979), in their order.

    The chance of even one false alarm among all of them is then at most the level at which they are judged.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
