"""The rule: what promotes, what does not, and what is said of it."""

import numpy as np
import pytest

from recursight.params import Gate, Registry
from recursight.registry.gate import Scored, judge, level_of

CLASSES = ("cat", "dog", "emu")
BARS = Registry(minimum_accuracy=0.5, minimum_class_recall=0.1)
ACTUAL = np.repeat([0, 1, 2], [500, 480, 20])


def scored(version: int, wrong: dict[int, int], cost: float = 1000.0, skip: int = 0) -> Scored:
    """Answers that are wrong for so many images of each class, from the one after `skip` on."""
    labels = ACTUAL.copy()
    for label, count in wrong.items():
        rows = np.flatnonzero(label == ACTUAL)[skip : skip + count]
        labels[rows] = (label + 1) % 3
    probabilities = np.full((len(ACTUAL), 3), 0.1)
    probabilities[np.arange(len(ACTUAL)), labels] = 0.8
    return Scored(version, probabilities, cost)


def verdict(challenger: Scored, champion: Scored | None, look: int = 1, bars: Registry = BARS, **gate: object):
    return judge(Gate(**gate), bars, CLASSES, ACTUAL, challenger, champion, look)


def test_a_better_one_is_promoted_and_the_numbers_say_why():
    found = verdict(scored(2, {0: 30}), scored(1, {0: 60, 1: 20}))
    assert found.promote
    assert (found.numbers["gained"], found.numbers["lost"]) == (50, 0)
    assert found.numbers["p_value"] == pytest.approx(0.5**50)
    assert "50 images gained and 0 lost" in found.reason


def test_an_equal_or_worse_one_is_not():
    for wrong in ({0: 60, 1: 20}, {0: 61, 1: 20}, {0: 58, 1: 20}):
        found = verdict(scored(2, wrong), scored(1, {0: 60, 1: 20}))
        assert not found.promote
        assert "not shown to be better in accuracy" in found.reason


def test_no_class_pays_for_the_others():
    champion = scored(1, {0: 100})
    assert not verdict(scored(2, {1: 12}), champion).promote
    found = verdict(scored(2, {1: 12}), champion)
    assert "'dog' from 100.00% to 97.50%" in found.reason
    assert verdict(scored(2, {1: 12}), champion, maximum_recall_loss=0.03).promote


def test_one_image_may_go_in_a_class_of_few_but_not_two():
    champion = scored(1, {0: 100})
    assert verdict(scored(2, {2: 1}), champion).promote
    found = verdict(scored(2, {2: 2}), champion)
    assert not found.promote
    assert "'emu' from 100.00% to 90.00%" in found.reason


def test_the_bars_hold_for_any_champion():
    bars = Registry(minimum_accuracy=0.9, minimum_class_recall=0.5)
    poor = scored(2, {0: 150})
    assert not verdict(poor, scored(1, {0: 300}), bars=bars).promote
    assert "registry.minimum_accuracy" in verdict(poor, None, bars=bars).reason
    assert "the recall of class 'emu'" in verdict(scored(2, {2: 15}), None, bars=bars).reason
    assert verdict(scored(2, {0: 20}), None, bars=bars).promote


def test_later_challengers_of_one_champion_share_the_level():
    gate = Gate(level=0.01)
    assert sum(level_of(gate, look) for look in range(1, 10_000)) == pytest.approx(0.01, rel=1e-3)
    assert level_of(Gate(level=0.01, looks="single"), 100) == 0.01
    challenger, champion = scored(2, {0: 50}), scored(1, {0: 60})  # ten gained, p = 0.001
    assert verdict(challenger, champion, look=1).promote
    assert not verdict(challenger, champion, look=5).promote
    assert verdict(challenger, champion, look=5, looks="single").promote


def test_not_worse_and_cheaper():
    champion = scored(1, {0: 20}, cost=1000)
    cheaper = {"mode": "cheaper", "margin": 0.02}
    same, worse = scored(2, {0: 20}, cost=800), scored(2, {0: 60}, cost=800)
    assert verdict(same, champion, **cheaper).promote
    assert "800 parameters against 1,000" in verdict(same, champion, **cheaper).reason
    assert not verdict(worse, champion, maximum_recall_loss=0.5, **cheaper).promote
    assert "not cheaper by 10%" in verdict(scored(2, {0: 20}, cost=950), champion, **cheaper).reason
    assert "not worse by 0.0001" in verdict(same, champion, mode="cheaper", margin=0.0001).reason, "too few images"


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_other_metrics_are_tested_by_bootstrap(metric: str):
    better, champion = scored(2, {0: 20}), scored(1, {0: 60, 1: 20})
    found = verdict(better, champion, metric=metric, bootstrap_samples=200)
    assert found.promote
    assert found.numbers["gain"] > 0
    backwards = verdict(champion, better, metric=metric, bootstrap_samples=200, maximum_recall_loss=1)
    assert not backwards.promote
    assert backwards.numbers["p_value"] == 1.0


def test_a_class_without_test_images_is_not_judged():
    actual = ACTUAL[ACTUAL != 2]
    some = [
        Scored(version, scored(version, {0: wrong}).probabilities[: len(actual)], 1.0)
        for version, wrong in ((1, 80), (2, 10))
    ]
    found = judge(Gate(), BARS, CLASSES, actual, some[1], some[0])
    assert found.promote
    assert found.numbers["challenger"]["worst_class"] == "cat"
