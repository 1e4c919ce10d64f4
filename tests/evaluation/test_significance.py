"""Intervals hold what they promise; tests equal what is computed by hand."""

from math import comb

import numpy as np
import pytest
from sklearn.metrics import f1_score

from recursight.evaluation.compare import accuracy_interval
from recursight.evaluation.significance import (
    bootstrap,
    holm,
    interval,
    mcnemar,
    mcnemar_over_seeds,
    wilson_interval,
)


def outcomes(only_first: int, only_second: int, both: int = 5) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, False, True], [only_first, only_second, both])
    second = np.repeat([False, True, True], [only_first, only_second, both])
    return first, second


def test_mcnemar_by_hand() -> None:
    # 1 against 9 of 10 coins: two tails of C(10,0) + C(10,1) = 11 of 1024 each.
    assert mcnemar(*outcomes(1, 9)) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(*outcomes(9, 1)) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(*outcomes(0, 6)) == pytest.approx(2 / 64)
    assert mcnemar(*outcomes(4, 4)) == 1
    assert mcnemar(*outcomes(0, 0)) == 1
    exact = 2 * sum(comb(150, wins) for wins in range(56)) / 2**150
    assert mcnemar(*outcomes(55, 95, both=9000)) == pytest.approx(exact)


def test_mcnemar_ignores_images_on_which_both_agree() -> None:
    assert mcnemar(*outcomes(2, 8, both=0)) == mcnemar(*outcomes(2, 8, both=10_000))


def test_mcnemar_over_seeds_is_twice_the_median() -> None:
    pairs = [outcomes(1, 9, 5), outcomes(3, 7, 5), outcomes(0, 10, 5)]
    first, second = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    assert mcnemar_over_seeds(first, second) == pytest.approx(2 * 2 * 11 / 1024)
    assert mcnemar_over_seeds(first[:1], second[:1]) == pytest.approx(2 * 11 / 1024)


def test_seeds_that_contradict_each_other_show_no_difference() -> None:
    """Two lots of two trainings, one good and one bad each: how they are paired must not matter."""
    good, bad = outcomes(40, 10, 1950)
    first, second = np.stack([good, bad]), np.stack([bad, good])
    assert mcnemar_over_seeds(first, second) == 1
    second[1, 0] = ~second[1, 0]
    assert mcnemar_over_seeds(first, second) > 0.05
    assert mcnemar_over_seeds(first, second[::-1]) > 0.05


def test_tests_rarely_cry_wolf() -> None:
    """Of pairs of equally good classifiers, at most the promised share is called different."""
    generator = np.random.default_rng(0)
    draws = generator.uniform(size=(2, 400, 3, 300)) < 0.9
    single = [mcnemar(first[0], second[0]) < 0.05 for first, second in zip(*draws, strict=True)]
    several = [mcnemar_over_seeds(first, second) < 0.05 for first, second in zip(*draws, strict=True)]
    assert 0.005 < np.mean(single) <= 0.05
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
        resampled = bootstrap(actual, [predictions(right, actual)], classes=3, samples=300, seed=trial)
        low, high = accuracy_interval(float(right.mean()), resampled.accuracy[0], 300, 0.95)
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
        resampled = bootstrap(actual, [predictions(right, actual)], classes=3, samples=300, seed=trial)
        low, high = interval(resampled.accuracy[0], 0.95)
        with_seeds.append(low <= 0.85 <= high)
        images_only = right.mean(axis=0)[generator.integers(0, 400, size=(300, 400))].mean(axis=1)
        low, high = interval(images_only, 0.95)
        without.append(low <= 0.85 <= high)
    assert np.mean(with_seeds) >= 0.85
    assert np.mean(without) < np.mean(with_seeds) - 0.1


def test_bootstrap_centres_on_the_scores_and_pairs_candidates() -> None:
    generator = np.random.default_rng(3)
    actual = generator.integers(0, 4, 500)
    first = np.where(generator.uniform(size=(1, 500)) < 0.8, actual, 0)
    resampled = bootstrap(actual, [first, first], classes=4, samples=2000, seed=0)
    assert resampled.accuracy[0].mean() == pytest.approx((first[0] == actual).mean(), abs=0.003)
    assert resampled.macro_f1[0].mean() == pytest.approx(f1_score(actual, first[0], average="macro"), abs=0.004)
    assert (resampled.accuracy[0] == resampled.accuracy[1]).all()  # the same images were drawn for both
    again = bootstrap(actual, [first], classes=4, samples=2000, seed=0)
    assert (again.macro_f1[0] == resampled.macro_f1[0]).all()
    other = bootstrap(actual, [first], classes=4, samples=2000, seed=1)
    assert (other.accuracy[0] != resampled.accuracy[0]).any()


def test_resampled_macro_f1_is_that_of_scikit_learn() -> None:
    """One resample, rebuilt by hand from the same random numbers; a class may be missing from it."""
    generator = np.random.default_rng(4)
    actual = generator.integers(0, 6, 12)
    predicted = generator.integers(0, 6, (1, 12))
    resampled = bootstrap(actual, [predicted], classes=6, samples=1, seed=7)
    drawn = np.random.default_rng(7).integers(0, 12, size=(12, 1)).ravel()
    assert resampled.accuracy[0, 0] == pytest.approx((predicted[0] == actual)[drawn].mean())
    assert resampled.macro_f1[0, 0] == pytest.approx(f1_score(actual[drawn], predicted[0][drawn], average="macro"))


def test_no_mistakes_still_leave_doubt() -> None:
    actual = np.zeros(50, dtype=int)
    resampled = bootstrap(actual, [actual[np.newaxis]], classes=2, samples=100, seed=0)
    assert interval(resampled.accuracy[0], 0.95) == (1, 1)
    assert accuracy_interval(1.0, resampled.accuracy[0], 50, 0.95)[0] < 0.95
