"""The rule: what promotes, what does not, and what is said of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from recursight.errors import InputError
from recursight.params import Gate, load
from recursight.registry.gate import Scored, judge, level_of
from recursight.tasks import Task, make_task, mean_of

CLASSES = ("cat", "dog", "emu")
TASK = make_task("classification", {})
MINIMUMS = {"accuracy": 0.5, "worst_class_recall": 0.1}
ACTUAL = np.repeat([0, 1, 2], [500, 480, 20])


def scored(version: int, wrong: dict[int, int], cost: float = 1000.0, actual: np.ndarray = ACTUAL) -> Scored:
    """Answers that are wrong for so many images of each class."""
    labels = actual.copy()
    for label, count in wrong.items():
        rows = np.flatnonzero(label == actual)[:count]
        labels[rows] = (label + 1) % 3
    probabilities = np.full((len(actual), 3), 0.1)
    probabilities[np.arange(len(actual)), labels] = 0.8
    return Scored(version, TASK.score(probabilities, actual, CLASSES), cost)


def verdict(
    challenger: Scored, champion: Scored | None, look: int = 1, minimums: dict[str, float] = MINIMUMS, **gate: object
):
    return judge(Gate(**gate), TASK, minimums, challenger, champion, look)


def test_a_better_one_is_promoted_and_the_numbers_say_why():
    found = verdict(scored(2, {0: 30}), scored(1, {0: 60, 1: 20}))
    assert found.promote
    assert (found.numbers["gained"], found.numbers["lost"]) == (50, 0)
    assert found.numbers["p_value"] == pytest.approx(0.5**50)
    assert "of 1,000 examples, 50 newly right, 0 newly wrong" in found.reason


def test_an_equal_or_worse_one_is_not():
    for wrong in ({0: 60, 1: 20}, {0: 61, 1: 20}, {0: 58, 1: 20}):
        found = verdict(scored(2, wrong), scored(1, {0: 60, 1: 20}))
        assert not found.promote
        assert "not shown to be better in accuracy" in found.reason


def test_no_class_pays_for_the_others():
    champion = scored(1, {0: 100})
    assert not verdict(scored(2, {1: 12}), champion).promote
    found = verdict(scored(2, {1: 12}), champion)
    assert "'dog' from 100.00 % to 97.50 %" in found.reason
    assert verdict(scored(2, {1: 12}), champion, maximum_slice_loss=0.03).promote


def test_one_image_may_go_in_a_class_of_few_but_not_two():
    champion = scored(1, {0: 100})
    assert verdict(scored(2, {2: 1}), champion).promote
    found = verdict(scored(2, {2: 2}), champion)
    assert not found.promote
    assert "'emu' from 100.00 % to 90.00 %" in found.reason


def test_the_minimums_hold_for_any_champion():
    minimums = {"accuracy": 0.9, "worst_class_recall": 0.5}
    poor = scored(2, {0: 150})
    assert not verdict(poor, scored(1, {0: 300}), minimums=minimums).promote
    assert "accuracy, 85.00 %, is below 90.00 % (registry.minimums.accuracy)" in (
        verdict(poor, None, minimums=minimums).reason
    )
    assert (
        "recall of the worst class (class 'emu'), 25.00 %"
        in verdict(scored(2, {2: 15}), None, minimums=minimums).reason
    )
    assert verdict(scored(2, {0: 20}), None, minimums=minimums).promote
    assert "log loss, 0.4997, is above 0.1 (registry.minimums.log_loss)" in (
        verdict(scored(2, {0: 133}), None, minimums={"log_loss": 0.1}).reason
    )


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
    assert not verdict(worse, champion, maximum_slice_loss=0.5, **cheaper).promote
    assert "not cheaper by 10%" in verdict(scored(2, {0: 20}, cost=950), champion, **cheaper).reason
    assert "not worse by 0.0001" in verdict(same, champion, mode="cheaper", margin=0.0001).reason, "too few images"


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_other_metrics_are_tested_by_bootstrap(metric: str):
    better, champion = scored(2, {0: 20}), scored(1, {0: 60, 1: 20})
    found = verdict(better, champion, metric=metric, bootstrap_samples=200)
    assert found.promote
    assert found.numbers["gain"] > 0
    backwards = verdict(champion, better, metric=metric, bootstrap_samples=200, maximum_slice_loss=1)
    assert not backwards.promote
    assert backwards.numbers["p_value"] == 1.0


def test_a_class_without_test_images_is_not_judged():
    some = [scored(version, {0: wrong}, actual=ACTUAL[ACTUAL != 2]) for version, wrong in ((1, 80), (2, 10))]
    found = verdict(some[1], some[0])
    assert found.promote
    assert found.numbers["largest_slice_loss_of"] == "dog"


def test_versions_with_another_order_of_the_classes_are_compared_class_by_class():
    champion = scored(1, {0: 100})
    order = ["emu", "cat", "dog"]
    turned = champion.rows.assign(actual=champion.rows["actual"].cat.reorder_categories(order))
    found = verdict(scored(2, {1: 12}), Scored(1, turned, 1000.0))
    assert "'dog' from 100.00 % to 97.50 %" in found.reason


@dataclass(frozen=True)
class Brightness(Task):
    """A task without right and wrong: it has no slices and a single figure, of which less is better."""

    vocabulary = outputs = encode = loss = answers = score = None  # nothing of it is asked here

    @property
    def metrics(self):
        return {"error": mean_of("error", name="error", title="mean error", higher_is_better=False)}

    @property
    def rendering(self) -> ModuleType:
        raise AssertionError


def test_a_task_without_right_and_wrong_is_compared_by_bootstrap():
    errors = np.random.default_rng(0).gamma(2.0, 0.1, 400)

    def scored_by(version: int, factor: float) -> Scored:
        return Scored(version, pd.DataFrame({"error": factor * errors}), 10.0)

    better = judge(Gate(), Brightness(), {"error": 0.5}, scored_by(2, 0.8), scored_by(1, 1.0))
    assert better.promote
    assert better.numbers["challenger"]["error"] == pytest.approx(0.8 * errors.mean())
    assert not judge(Gate(), Brightness(), {"error": 0.5}, scored_by(2, 1.0), scored_by(1, 1.0)).promote
    cheaper = {"mode": "cheaper", "margin": 0.05}
    assert judge(Gate(**cheaper), Brightness(), {}, Scored(2, scored_by(2, 1.1).rows, 5.0), scored_by(1, 1.0)).promote
    refused = judge(Gate(), Brightness(), {"error": 0.1}, scored_by(2, 0.8), scored_by(1, 1.0))
    assert "mean error" in refused.reason
    assert "is above 0.1 (registry.minimums.error)" in refused.reason


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("gate: {metric: acuracy}", "gate.metric: 'classification' has no metric 'acuracy'; did you mean 'accuracy'"),
        ("registry: {minimums: {recall: 0.5}}", "registry.minimums: 'classification' has no metric 'recall'"),
        ("registry: {minimum_accuracy: 0.5}", "minimum_accuracy"),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_refused(tmp_path: Path, section: str, sentence: str):
    (tmp_path / "params.yaml").write_text(f"candidates: {{gru: {{layer: gru, hidden: 8}}}}\n{section}\n")
    with pytest.raises(InputError, match=re.escape(sentence)):
        load(tmp_path / "params.yaml")


def test_minimums_of_params_yaml_replace_or_extend_those_of_the_task(tmp_path: Path):
    content = "candidates: {gru: {layer: gru, hidden: 8}}\nregistry: {minimums: {accuracy: 0.97, macro_f1: 0.5}}\n"
    (tmp_path / "params.yaml").write_text(content)
    assert load(tmp_path / "params.yaml").minimums == {"accuracy": 0.97, "worst_class_recall": 0.5, "macro_f1": 0.5}
