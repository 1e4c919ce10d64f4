"""Each scan reads a small image in the order that its name says."""

import pytest
import torch

from recursight.models.scans import SCANS

IMAGE = torch.tensor([[[1, 2, 3], [4, 5, 6]]])[..., None]  # 1 2 3 1


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("rows", [[[1, 2, 3], [4, 5, 6]]]),
        ("columns", [[[1, 4], [2, 5], [3, 6]]]),
        ("rows+columns", [[[1, 2, 3], [4, 5, 6]], [[1, 4], [2, 5], [3, 6]]]),
        ("pixels", [[[1], [2], [3], [4], [5], [6]]]),
        ("snake", [[[1], [2], [3], [6], [5], [4]]]),
        ("whole", [[[1, 2, 3, 4, 5, 6]]]),
        ("grid", [[[[1], [2], [3]], [[4], [5], [6]]]]),
    ],
)
def test_order(name: str, views: list[list[list[int]]]) -> None:
    assert [view[0].tolist() for view in SCANS[name](IMAGE)] == views


def test_every_scan_is_tested_above() -> None:
    mark = test_order.pytestmark[0]
    assert {row[0] for row in mark.args[1]} == set(SCANS)


@pytest.mark.parametrize("name", SCANS)
def test_channels_stay_together(name: str) -> None:
    coloured = torch.cat([IMAGE, IMAGE + 10], dim=-1)
    for view, grey in zip(SCANS[name](coloured), SCANS[name](IMAGE), strict=True):
        assert view.shape[:-1] == grey.shape[:-1]
        pairs = view.reshape(-1, 2)
        assert torch.equal(pairs[:, 0] + 10, pairs[:, 1])
        assert pairs[:, 0].tolist() == grey.flatten().tolist()
