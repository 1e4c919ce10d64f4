"""One-sided paired tests keep their promise: they err at most at their level, and see what is there."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from recursight.evaluation import improvement
from recursight.tasks import make_task, mean_of

ERROR = mean_of("error", name="error", title="error", higher_is_better=False)


def pair(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of champion and challenger."""
    counts = (both, gained, lost, neither)
    return np.repeat([True, False, True, False], counts), np.repeat([True, True, False, False], counts)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (7, 2), (30, 12), (12, 30), (5, 5)])
def test_mcnemar_is_the_binomial_tail(gained, lost):
    champion, challenger = pair(50, gained, lost, 3)
    expected = stats.binomtest(gained, gained + lost, alternative="greater").pvalue
    found = improvement.mcnemar_better(champion, challenger)
    assert found == pytest.approx(expected if gained > lost else 1.0)


def test_equal_answers_prove_nothing_better_but_not_worse():
    champion, challenger = pair(9_900, 0, 0, 100)
    assert improvement.mcnemar_better(champion, challenger) == 1.0
    assert improvement.share_not_worse(champion, challenger, 0.002) < 0.001
    assert improvement.share_not_worse(champion[:100], challenger[:100], 0.002) > 0.3, "100 images are too few"


@pytest.mark.parametrize(("gained", "lost", "margin"), [(12, 20, 0.02), (0, 4, 0.01), (40, 5, 0.05)])
def test_tangos_share_is_the_likeliest_one(gained, lost, margin):
    count = 1000
    rest = count - gained - lost
    champion, challenger = pair(rest, gained, lost, 0)

    def surprise(share: float) -> float:  # of the counts, if the difference of the shares is -margin
        gain = share - margin
        kept = 1 - share - gain
        return -(gained * np.log(max(gain, 1e-300)) + lost * np.log(share) + rest * np.log(kept))

    low, high = margin + 1e-12, (1 + margin) / 2 - 1e-9
    share = optimize.minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    z = (gained - lost + count * margin) / np.sqrt(count * (2 * share - margin - margin**2))
    found = improvement.share_not_worse(champion, challenger, margin)
    assert found == pytest.approx(stats.norm.sf(z), rel=1e-3)


def test_without_a_margin_tango_is_mcnemar():
    champion, challenger = pair(900, 40, 20, 40)
    found = improvement.share_not_worse(champion, challenger, 1e-9)
    assert found == pytest.approx(stats.norm.sf(20 / np.sqrt(60)), rel=1e-4)


def test_the_bootstrap_errs_at_its_level_and_sees_a_gain():
    random = np.random.default_rng(0)

    def p_value(gain: float) -> float:
        values = random.normal(gain, 1.0, 400)
        rows = [pd.DataFrame({"error": each}) for each in (values, np.zeros_like(values))]
        resampled = improvement.gain_resamples(ERROR, *rows, samples=400, seed=1)
        return improvement.bootstrap_better(float(values.mean()), resampled)

    equal = np.array([p_value(0.0) for _ in range(300)])
    assert 0.01 <= (equal <= 0.05).mean() <= 0.09
    assert np.mean([p_value(0.3) <= 0.001 for _ in range(20)]) > 0.9


def test_macro_f1_sees_what_a_rare_class_gains():
    random = np.random.default_rng(0)
    actual = np.repeat([0, 1], [2000, 100])
    champion, challenger = actual.copy(), actual.copy()
    champion[2000 + random.choice(100, 60, replace=False)] = 0
    challenger[2000 + random.choice(100, 20, replace=False)] = 0
    task = make_task("classification", {})
    rows = [task.score(np.eye(2)[predicted], actual, ["often", "rare"]) for predicted in (champion, challenger)]
    resampled = improvement.gain_resamples(task.metrics["macro_f1"], *rows, samples=300, seed=0)
    assert improvement.bootstrap_better(float(resampled.mean()), resampled) < 1e-4
    assert improvement.bootstrap_better(-float(resampled.mean()), -resampled) == 1.0
