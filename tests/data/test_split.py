import hashlib

import numpy as np
import pytest

from recursight.data.split import OUT, TEST, TRAIN, UNSAID, VALIDATION, Strata, assign, identity, units_of
from recursight.errors import InputError


def hashes(count: int, salt: str = "") -> np.ndarray:
    rows = [np.frombuffer(hashlib.sha256(f"{salt}{number}".encode()).digest(), np.uint8) for number in range(count)]
    return np.stack(rows)


def split(
    labels: np.ndarray,
    official: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    sha256: np.ndarray | None = None,
    seed: int = 0,
    validation: float = 0.15,
    test: float = 0.2,
) -> np.ndarray:
    sha256 = hashes(len(labels)) if sha256 is None else sha256
    groups = np.full(len(labels), -1) if groups is None else groups
    return assign(
        Strata(labels),
        np.full(len(labels), UNSAID) if official is None else official,
        units_of(sha256, groups),
        sha256,
        names=tuple(f"class {number}" for number in range(labels.max() + 1)),
        validation=validation,
        test=test,
        seed=seed,
    )


def test_shares_are_met_in_each_class() -> None:
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    splits = split(labels)
    for label, expected in enumerate([(680, 120, 200), (68, 12, 20), (7, 1, 2)]):
        found = tuple(((splits == each) & (labels == label)).sum() for each in (TRAIN, VALIDATION, TEST))
        assert found == expected


def test_the_smallest_class_that_can_be_split() -> None:
    splits = split(np.repeat([0, 1], [3, 50]))
    assert sorted(splits[:3]) == [TRAIN, VALIDATION, TEST]
    with pytest.raises(InputError, match=r"into train and validation and test: 'class 0' \(2\); each needs 3"):
        split(np.repeat([0, 1], [2, 50]))


def test_seed_decides() -> None:
    labels = np.repeat([0, 1], 100)
    np.testing.assert_array_equal(split(labels, seed=3), split(labels, seed=3))
    assert (split(labels, seed=3) != split(labels, seed=4)).any()


def test_order_does_not_matter() -> None:
    labels, sha256 = np.repeat([0, 1], 100), hashes(200)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(split(labels[order], sha256=sha256[order]), split(labels, sha256=sha256)[order])


def test_later_images_move_few() -> None:
    labels, sha256 = np.arange(1100) % 2, hashes(1100)
    before, after = split(labels[:1000], sha256=sha256[:1000]), split(labels, sha256=sha256)
    assert (before != after[:1000]).mean() < 0.03


def test_official_splits_are_kept() -> None:
    labels = np.arange(300) % 3
    official = np.where(np.arange(300) < 60, TEST, TRAIN)
    splits = split(labels, official)
    assert (splits[:60] == TEST).all()
    assert (splits[60:] == VALIDATION).sum() == 36
    official[60:90] = VALIDATION
    np.testing.assert_array_equal(split(labels, official), official)


def test_missing_test_split_comes_from_training_images() -> None:
    labels = np.arange(300) % 3
    official = np.where(np.arange(300) < 60, VALIDATION, TRAIN)
    splits = split(labels, official)
    assert (splits[:60] == VALIDATION).all()
    assert (splits[60:] == TEST).sum() == 60


def test_no_training_images() -> None:
    with pytest.raises(InputError, match="no training images"):
        split(np.arange(10) % 2, np.full(10, TEST))


def test_class_without_training_images() -> None:
    official = np.repeat([TRAIN, VALIDATION, TEST], 4)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1])
    with pytest.raises(InputError, match=r"into train: 'class 1' \(0\)"):
        split(labels, official)


def test_copies_are_left_out_of_training() -> None:
    sha256 = hashes(12)
    sha256[0] = sha256[4] = sha256[8]  # a training, a validation and a test image
    sha256[1] = sha256[5]
    sha256[2] = sha256[3]  # both for training: no harm
    official = np.repeat([TRAIN, VALIDATION, TEST], 4)
    labels = np.zeros(12, np.int64)
    assert split(labels, official, sha256=sha256).tolist() == [
        *(OUT, OUT, TRAIN, TRAIN),
        *(OUT, VALIDATION, VALIDATION, VALIDATION),
        *(TEST, TEST, TEST, TEST),
    ]


def test_groups_that_official_splits_tear() -> None:
    official = np.repeat([TRAIN, TEST], 20)
    groups = np.full(40, -1)
    groups[[0, 1, 20]] = 0
    splits = split(np.arange(40) % 2, official, groups)
    assert splits[[0, 1, 20]].tolist() == [OUT, OUT, TEST]
    assert (splits == OUT).sum() == 2


def test_identical_images_stay_together() -> None:
    sha256 = hashes(400)
    sha256[200:300] = sha256[:100]
    splits = split(np.arange(400) % 4, sha256=sha256)
    np.testing.assert_array_equal(splits[200:300], splits[:100])
    assert abs((splits == TEST).mean() - 0.2) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_shares_are_met_closely(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 150, 3000)
    labels = (groups + draw.integers(0, 3, 3000)) % 5
    splits = split(labels, groups=groups, seed=seed)
    for group in range(150):
        assert len(set(splits[groups == group])) == 1
    for label in range(5):
        shares = [(splits[labels == label] == each).mean() for each in (TRAIN, VALIDATION, TEST)]
        np.testing.assert_allclose(shares, [0.68, 0.12, 0.2], atol=0.05)


def test_groups_and_copies_chain() -> None:
    sha256 = hashes(6)
    sha256[1] = sha256[2]
    groups = np.array([0, 0, 1, 1, -1, -1])
    units = units_of(sha256, groups)
    assert len(set(units[:4])) == 1
    assert len(set(units)) == 3


def test_large_groups_still_give_every_split_every_class() -> None:
    """Each class has three groups, of very different sizes: only one way of dealing them out is right."""
    sizes = [90, 5, 5] * 4
    groups = np.repeat(np.arange(12), sizes)
    labels = groups // 3
    splits = split(labels, groups=groups)
    for label in range(4):
        assert set(splits[labels == label]) == {TRAIN, VALIDATION, TEST}


def test_too_few_groups() -> None:
    groups = np.repeat([0, 1], 50)
    with pytest.raises(InputError, match=r"'class 0' \(2\)"):
        split(np.zeros(100, np.int64), groups=groups)


def test_identity() -> None:
    sha256 = hashes(4)
    sha256[3] = sha256[1]
    numbers = identity(sha256)
    assert numbers[3] == numbers[1]
    assert len(set(numbers)) == 3
