"""Each scan reads a small image in the order that its name says."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recursight.models.scans import SCANS

IMAGE = torch.tensor([[[1, 2, 3], [4, 5, 6]]])[..., None]  # 1 2 3 1
SQUARES = torch.arange(16).reshape(1, 4, 4, 1)


def read(name: str, image: Tensor, **options: Any) -> list[Tensor]:
    if "patch" in name:
        options = {"patch_size": 1} | options
    views: list[Tensor] = SCANS[name](image.shape[1:], **options)(image)
    return views


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("rows", [[[1, 2, 3], [4, 5, 6]]]),
        ("columns", [[[1, 4], [2, 5], [3, 6]]]),
        ("rows+columns", [[[1, 2, 3], [4, 5, 6]], [[1, 4], [2, 5], [3, 6]]]),
        ("pixels", [[[1], [2], [3], [4], [5], [6]]]),
        ("permuted", [[[6], [3], [2], [4], [1], [5]]]),
        ("patches", [[[1], [2], [3], [4], [5], [6]]]),
        ("snake", [[[1], [2], [3], [6], [5], [4]]]),
        ("whole", [[[1, 2, 3, 4, 5, 6]]]),
        ("grid", [[[[1], [2], [3]], [[4], [5], [6]]]]),
        ("patch-grid", [[[[1], [2], [3]], [[4], [5], [6]]]]),
    ],
)
def test_order(name: str, views: list[list[list[int]]]) -> None:
    assert [view[0].tolist() for view in read(name, IMAGE)] == views


def test_every_scan_is_tested_above() -> None:
    mark = test_order.pytestmark[0]
    assert {row[0] for row in mark.args[1]} == set(SCANS)


@pytest.mark.parametrize("name", SCANS)
def test_channels_stay_together(name: str) -> None:
    coloured = torch.cat([IMAGE, IMAGE + 10], dim=-1)
    for view, grey in zip(read(name, coloured), read(name, IMAGE), strict=True):
        assert view.shape[:-1] == grey.shape[:-1]
        pairs = view.reshape(-1, 2)
        assert torch.equal(pairs[:, 0] + 10, pairs[:, 1])
        assert pairs[:, 0].tolist() == grey.flatten().tolist()


def test_patches_are_squares_in_reading_order() -> None:
    squares = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert read("patches", SQUARES, patch_size=2)[0][0].tolist() == squares
    assert read("patch-grid", SQUARES, patch_size=2)[0][0].tolist() == [squares[:2], squares[2:]]


def test_patches_must_tile_the_image() -> None:
    with pytest.raises(ValueError, match="patch_size 3 does not tile 4×4; use one of 1, 2, 4"):
        read("patches", SQUARES, patch_size=3)


def test_a_permutation_is_one_order_for_all_images_and_another_for_another_seed() -> None:
    two = torch.cat([SQUARES, SQUARES])
    first, second = read("permuted", two)[0].squeeze(-1).tolist()
    assert first == second
    assert sorted(first) == list(range(16))
    assert read("permuted", SQUARES, seed=1)[0].flatten().tolist() not in (first, list(range(16)))
