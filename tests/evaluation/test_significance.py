"""Intervals hold what they promise; tests equal what is computed by hand."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from recursight.evaluation.significance import bootstrap, holm, interval, mcnemar, metric_interval
from recursight.tasks.classification import Classification
from recursight.tasks.metric import wilson_interval

METRICS = Classification().metrics
ACCURACY, MACRO_F1 = METRICS["accuracy"], METRICS["macro_f1"]


def rows_of(actual: np.ndarray, predicted: np.ndarray, classes: int = 3) -> pd.DataFrame:
    """Scores of answers that are quite sure."""
    return Classification().score(np.eye(classes)[predicted], actual, [str(index) for index in range(classes)])


def resampled_accuracy(actual: np.ndarray, predicted: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Of one candidate, from S × N predictions."""
    trainings = [rows_of(actual, one) for one in predicted]
    return bootstrap([trainings], [ACCURACY], samples=samples, seed=seed)["accuracy"][0]


def single(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's test of two trainings."""
    return mcnemar(first[np.newaxis], second[np.newaxis])


def outcomes(only_first: int, only_second: int, both: int = 5) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, False, True], [only_first, only_second, both])
    second = np.repeat([False, True, True], [only_first, only_second, both])
    return first, second


def test_mcnemar_by_hand() -> None:
    # 1 against 9 of 10 coins: two tails of C(10,0) + C(10,1) = 11 of 1024 each.
    assert single(*outcomes(1, 9)) == pytest.approx(2 * 11 / 1024)
    assert single(*outcomes(9, 1)) == pytest.approx(2 * 11 / 1024)
    assert single(*outcomes(0, 6)) == pytest.approx(2 / 64)
    assert single(*outcomes(4, 4)) == 1
    assert single(*outcomes(0, 0)) == 1
    exact = 2 * sum(comb(150, wins) for wins in range(56)) / 2**150
    assert single(*outcomes(55, 95, both=9000)) == pytest.approx(exact)


def test_mcnemar_ignores_images_on_which_both_agree() -> None:
    assert single(*outcomes(2, 8, both=0)) == single(*outcomes(2, 8, both=10_000))


def test_mcnemar_over_seeds_is_twice_the_median() -> None:
    pairs = [outcomes(1, 9, 5), outcomes(3, 7, 5), outcomes(0, 10, 5)]
    first, second = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    assert mcnemar(first, second) == pytest.approx(2 * 2 * 11 / 1024)
    assert mcnemar(first[:1], second[:1]) == pytest.approx(2 * 11 / 1024)


def test_seeds_that_contradict_each_other_show_no_difference() -> None:
    """Two lots of two trainings, one good and one bad each: how they are paired must not matter."""
    good, bad = outcomes(40, 10, 1950)
    first, second = np.stack([good, bad]), np.stack([bad, good])
    assert mcnemar(first, second) == 1
    second[1, 0] = ~second[1, 0]
    assert mcnemar(first, second) > 0.05
    assert mcnemar(first, second[::-1]) > 0.05


def test_tests_rarely_cry_wolf() -> None:
    """Of pairs of equally good classifiers, at most the promised share is called different."""
    generator = np.random.default_rng(0)
    draws = generator.uniform(size=(2, 400, 3, 300)) < 0.9
    alone = [single(first[0], second[0]) < 0.05 for first, second in zip(*draws, strict=True)]
    several = [mcnemar(first, second) < 0.05 for first, second in zip(*draws, strict=True)]
    assert 0.005 < np.mean(alone) <= 0.05
    assert np.mean(several) <= 0.05


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.5, 0.9]) == pytest.approx([0.6, 1, 1])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_wilson_by_hand() -> None:
    # n = 10, none right: from 0 to z² / (n + z²).
    assert wilson_interval(0, 10, 0.95) == pytest.approx((0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson_interval(10, 10, 0.95) == pytest.approx((10 / 13.8415, 1), abs=1e-4)
    assert wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, 1998, table I


def predictions(right: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return np.where(right, actual, (actual + 1) % 3)


@pytest.mark.parametrize("accuracy", [0.7, 0.95, 0.99])
def test_accuracy_intervals_cover_the_truth(accuracy: float) -> None:
    generator = np.random.default_rng(1)
    covered = []
    for trial in range(200):
        actual = generator.integers(0, 3, 300)
        right = generator.uniform(size=(1, 300)) < accuracy
        resampled = resampled_accuracy(actual, predictions(right, actual), 300, trial)
        low, high = metric_interval(ACCURACY, float(right.mean()), resampled, 300, 0.95)
        covered.append(low <= accuracy <= high)
    assert 0.91 <= np.mean(covered) <= 0.995


def test_intervals_of_several_seeds_cover_the_mean_over_trainings() -> None:
    """Trainings differ more than images do: leaving the seeds out would cover far less often."""
    generator = np.random.default_rng(2)
    actual = np.zeros(400, dtype=int)
    with_seeds, without = [], []
    for trial in range(150):
        levels = np.clip(generator.normal(0.85, 0.03, size=(5, 1)), 0, 1)
        right = generator.uniform(size=(5, 400)) < levels
        low, high = interval(resampled_accuracy(actual, predictions(right, actual), 300, trial), 0.95)
        with_seeds.append(low <= 0.85 <= high)
        images_only = right.mean(axis=0)[generator.integers(0, 400, size=(300, 400))].mean(axis=1)
        low, high = interval(images_only, 0.95)
        without.append(low <= 0.85 <= high)
    assert np.mean(with_seeds) >= 0.85
    assert np.mean(without) < np.mean(with_seeds) - 0.1


def test_bootstrap_centres_on_the_scores_and_pairs_candidates() -> None:
    generator = np.random.default_rng(3)
    actual = generator.integers(0, 4, 500)
    rows = [rows_of(actual, np.where(generator.uniform(size=500) < 0.8, actual, 0), 4)]
    metrics = list(METRICS.values())
    resampled = bootstrap([rows, rows], metrics, samples=2000, seed=0)
    for metric in metrics:
        tolerance = 0.02 if metric.name == "worst_class_recall" else 0.004  # the worst of several is worse on resamples
        mean = resampled[metric.name][0].mean()
        assert mean == pytest.approx(metric.value(rows[0]), abs=tolerance, rel=0.01), metric.name
        assert (resampled[metric.name][0] == resampled[metric.name][1]).all()  # the same examples were drawn for both
    again = bootstrap([rows], [MACRO_F1], samples=2000, seed=0)
    assert (again["macro_f1"][0] == resampled["macro_f1"][0]).all()
    other = bootstrap([rows], [ACCURACY], samples=2000, seed=1)
    assert (other["accuracy"][0] != resampled["accuracy"][0]).any()


@pytest.mark.parametrize("name", METRICS)
def test_a_resampled_metric_is_the_metric_of_the_resample(name: str) -> None:
    """One resample, rebuilt by hand from the same random numbers; a class may be missing from it."""
    generator = np.random.default_rng(4)
    actual = generator.integers(0, 6, 12)
    answers = generator.dirichlet(np.ones(6), 12)
    rows = Classification(top_k=2).score(answers, actual, list("abcdef"))
    resampled = bootstrap([[rows]], [METRICS[name]], samples=1, seed=7)[name][0, 0]
    drawn = np.random.default_rng(7).integers(0, 12, size=(12, 1)).ravel()
    assert resampled == pytest.approx(METRICS[name].value(rows.iloc[drawn]))


def test_macro_f1_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(5)
    actual, predicted = generator.integers(0, 5, (2, 40))
    assert MACRO_F1.value(rows_of(actual, predicted, 7)) == pytest.approx(f1_score(actual, predicted, average="macro"))


def test_no_mistakes_still_leave_doubt() -> None:
    actual = np.zeros(50, dtype=int)
    resampled = resampled_accuracy(actual, actual[np.newaxis], 100, 0)
    assert interval(resampled, 0.95) == (1, 1)
    assert metric_interval(ACCURACY, 1.0, resampled, 50, 0.95)[0] < 0.95
