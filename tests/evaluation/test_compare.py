"""Validation chooses, test reports, and chance is called chance."""

import json

import pytest

from tests.evaluation.field import contest

FIELD = {
    "good": [(0.95, 0.93)],
    "near": [(0.94, 0.94)],
    "poor": [(0.80, 0.78)],
    "lucky": [(0.60, 0.99)],
}


def test_validation_ranks_and_test_reports() -> None:
    outcome, _ = contest(FIELD)
    assert outcome.winner == "good"  # though two are better on test
    assert [row["candidate"] for row in outcome.ranking] == ["good", "near", "poor", "lucky"]
    assert [row["verdict"] for row in outcome.ranking] == ["winner", "tied", "worse", "better on test"]
    first, near, poor, lucky = outcome.ranking
    assert first["test_accuracy"] == pytest.approx(0.93)
    assert near["difference"] == pytest.approx(0.01)
    assert near["difference_low"] < 0 < near["difference_high"]
    assert poor["difference_high"] < 0 < lucky["difference_low"]
    assert all(row["p_holm"] >= row["p_value"] for row in outcome.ranking[1:])
    json.dumps(outcome.ranking, allow_nan=False)


def test_log_loss_ranks_the_other_way_round() -> None:
    outcome, entrants = contest(FIELD, metric="log_loss")
    losses = {entrant.name: entrant.metrics[0]["validation"]["log_loss"] for entrant in entrants}
    assert [row["candidate"] for row in outcome.ranking] == sorted(losses, key=lambda name: losses[name])
    assert [row["verdict"] for row in outcome.ranking] == ["winner", "tied", "worse", "better on test"]
    assert outcome.ranking[2]["difference"] > 0  # a larger loss
    assert not outcome.exact


def test_equals_go_to_the_smaller_one_and_then_by_name() -> None:
    outcome, _ = contest({"longer": [(0.9, 0.9)], "bbb": [(0.9, 0.9)], "aaa": [(0.9, 0.9)]})
    assert [row["candidate"] for row in outcome.ranking] == ["aaa", "bbb", "longer"]  # parameters grow with the name


def test_seeds_are_averaged_and_the_best_one_is_named() -> None:
    outcome, entrants = contest(
        {"steady": [(0.90, 0.9), (0.92, 0.9), (0.91, 0.9)], "mixed": [(0.99, 0.8), (0.7, 0.8), (0.8, 0.8)]}
    )
    assert (outcome.winner, outcome.winner_seed) == ("steady", 1)
    assert outcome.ranking[0]["validation_accuracy"] == pytest.approx(0.91)
    assert outcome.ranking[0]["seeds"] == 3
    assert outcome.ranking[0]["test_deviation"] == pytest.approx(0)
    unsteady, _ = contest({"unsteady": [(0.9, 0.8), (0.9, 0.9)]})
    assert unsteady.ranking[0]["test_deviation"] == pytest.approx(0.05 * 2**0.5)
    assert outcome.ranking[1]["parameters"] == entrants[1].metrics[0]["parameters"]


def test_intervals_hold_the_score_and_shrink_with_more_images() -> None:
    def width(count: int) -> float:
        row = contest({"one": [(0.9, 0.9)]}, count=count)[0].ranking[0]
        low, high = row["test_accuracy_low"], row["test_accuracy_high"]
        assert low < 0.9 < high
        return float(high - low)

    assert width(1600) == pytest.approx(width(400) / 2, rel=0.15)


def test_the_same_input_gives_the_same_ranking() -> None:
    assert contest(FIELD)[0] == contest(FIELD)[0]
