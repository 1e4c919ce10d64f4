"""What alarms and what does not, on real images: MNIST where there is a copy, else the embedded digits."""

import warnings

import numpy as np
import pandas as pd
import pytest
from benchmarks.drift import rotated

from recursight.monitoring.compare import compare, stability_index

LEVEL, FLOOR = 0.01, 0.1


def halves(rows: pd.DataFrame, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a random reference, and of what windows may be drawn from."""
    order = generator.permutation(len(rows))
    return order[: len(order) // 2], order[len(order) // 2 :]


@pytest.mark.parametrize("size", [100, 180, pytest.param(1000, marks=pytest.mark.thorough)])
def test_unshifted_windows_hardly_alarm(answered, size):
    """Also without the floor of the effect, where the tests alone have to hold the level, which is 0.01."""
    generator, windows, alarms, by_chance_alone = np.random.default_rng(size), 200, 0, 0
    rows = answered.rows
    if size > len(rows) // 2:
        pytest.skip("too few test images for such windows")
    for _ in range(windows):
        reference, rest = halves(rows, generator)
        window = rows.iloc[generator.choice(rest, size, replace=False)]
        verdict = compare(rows.iloc[reference], window, level=LEVEL, psi_floor=FLOOR)
        alarms += bool(verdict.drifted)
        by_chance_alone += any(feature.p_holm <= LEVEL for feature in verdict.features)
    assert alarms <= by_chance_alone
    assert by_chance_alone / windows <= 0.05


@pytest.mark.parametrize("size", [100, 180])
@pytest.mark.parametrize("shift", ["inverted", "rotated 30", "rotated 60", "rotated 90", "Fashion-MNIST"])
def test_a_real_shift_alarms(answered, request, shift, size):
    reference, rest = halves(answered.rows, np.random.default_rng(0))
    if shift == "Fashion-MNIST":
        images = request.getfixturevalue("fashion_images")
    elif shift == "inverted":
        images = 255 - answered.images[rest]
    else:
        images = rotated(float(shift.split()[1]))(answered.images[rest])
    generator, found = np.random.default_rng(1), 0
    for _ in range(20):
        window = answered.ask(images[generator.choice(len(images), size, replace=False)])
        found += bool(compare(answered.rows.iloc[reference], window, level=LEVEL, psi_floor=FLOOR).drifted)
    assert found >= 19


def test_an_inversion_is_found_where_it_is(answered):
    found = compare(answered.rows, answered.ask(255 - answered.images), level=LEVEL, psi_floor=FLOOR)
    names = [feature.name for feature in found.drifted]
    assert {"brightness", "dark", "bright"} <= set(names)
    assert not {"edges_across", "edges_down"} & set(names)  # the same in negative
    assert [feature.name for feature in found.features][: len(names)] == names
    assert found.features[0].psi > 1
    assert found.rows == found.reference_rows == len(answered.rows)


def test_other_frequencies_of_classes_alarm_by_themselves():
    generator = np.random.default_rng(0)
    reference = pd.DataFrame({"predicted": generator.choice(list("abc"), 2000)})
    usual = pd.DataFrame({"predicted": generator.choice(list("abc"), 500)})
    more_of_one = pd.DataFrame({"predicted": generator.choice(list("abc"), 500, p=[0.6, 0.2, 0.2])})
    only_new = pd.DataFrame({"predicted": ["d"] * 500})
    assert not compare(reference, usual, level=LEVEL, psi_floor=FLOOR).drifted
    for window in (more_of_one, only_new):
        (feature,) = compare(reference, window, level=LEVEL, psi_floor=FLOOR).drifted
        assert (feature.name, feature.test) == ("predicted", "chi-squared")


def test_many_rare_classes_keep_the_level():
    """Two hundred classes, one row of each in a window: chi-squared alone would be no guide."""
    generator = np.random.default_rng(0)
    names, weights = [f"class {number}" for number in range(200)], generator.dirichlet(np.ones(200))
    alarms = 0
    for _ in range(200):
        reference, window = (pd.DataFrame({"predicted": generator.choice(names, n, p=weights)}) for n in (3000, 200))
        alarms += bool(compare(reference, window, level=0.05, psi_floor=0.0).drifted)
    assert alarms / 200 <= 0.08  # of a test at 0.05 itself: 0.05 and two standard errors


def test_a_trifle_in_a_huge_window_does_not_alarm():
    generator = np.random.default_rng(0)
    reference = pd.DataFrame({"brightness": generator.normal(0, 1, 100_000).astype(np.float32)})
    window = pd.DataFrame({"brightness": generator.normal(0.03, 1, 100_000).astype(np.float32)})
    (feature,) = compare(reference, window, level=LEVEL, psi_floor=FLOOR).features
    assert feature.p_value < 1e-6
    assert not feature.drifted
    assert compare(reference, window, level=LEVEL, psi_floor=0.0).drifted


def test_a_constant_that_changes_is_drift():
    reference = pd.DataFrame({"colour": np.zeros(500, np.float32)})
    window = pd.DataFrame({"colour": np.full(200, 0.3, np.float32)})
    assert compare(reference, window, level=LEVEL, psi_floor=FLOOR).drifted
    assert not compare(reference, reference[:200], level=LEVEL, psi_floor=FLOOR).drifted
    assert not compare(reference, reference[:200], level=LEVEL, psi_floor=0.0).drifted


def test_what_the_window_lacks_is_left_out():
    reference = pd.DataFrame({"brightness": np.linspace(0, 1, 500), "colour": np.linspace(0, 1, 500)})
    window = pd.DataFrame({"brightness": [0.5] * 300, "colour": [np.nan] * 300, "source": ["serve"] * 300})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = compare(reference, window, level=LEVEL, psi_floor=FLOOR)
    assert [feature.name for feature in verdict.features] == ["brightness"]


def test_the_stability_index_is_that_of_its_definition():
    expected, observed = np.array([50, 50]), np.array([75, 25])
    assert stability_index(expected, observed) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert stability_index(expected, 10 * expected) == 0
    assert np.isfinite(stability_index(np.array([1, 0]), np.array([0, 1])))
