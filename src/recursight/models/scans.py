"""Scans: in which order an image is read.

A scan takes a grid of features (B, H, W, C) and gives one or more views of it: sequences (B, T, D), each read by a
recurrent stack of its own, or the grid itself for layers that recur in two dimensions. Each is made from H, W, C;
keyword-only arguments are its options in `params.yaml`.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn


class Scan(nn.Module):
    """(B, H, W, C) to views.

    Args:
        shape: H, W, C.

    Attributes:
        grid: whether the view is a grid instead of a sequence.
        views: names of its views, if there are several.
    """

    grid: ClassVar[bool] = False
    views: ClassVar[tuple[str, ...]] = ()

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()


class Rows(Scan):
    """T = H steps from top to bottom, each a whole row."""

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.flatten(2)]  # B H W·C


class Columns(Scan):
    """T = W steps from left to right, each a whole column."""

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.transpose(1, 2).flatten(2)]  # B W H·C


class RowsAndColumns(Scan):
    """Two views: the rows, and the columns."""

    views = ("rows", "columns")

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.flatten(2), grid.transpose(1, 2).flatten(2)]


class Pixels(Scan):
    """T = H·W steps in reading order, each one pixel."""

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.flatten(1, 2)]  # B H·W C


class Permuted(Scan):
    """T = H·W steps, pixels in an order drawn once, the same for every image.

    (Le et al., 2015, arXiv:1504.00941, sec. 4.2.)

    Args:
        shape: H, W, C.
        seed: of the order.
    """

    order: Tensor

    def __init__(self, shape: Sequence[int], *, seed: int = 0) -> None:
        super().__init__(shape)
        # RandomState's stream never changes between releases, so a seed names one order for good.
        order = np.random.RandomState(seed).permutation(shape[0] * shape[1])
        self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.flatten(1, 2)[:, self.order]]


class Patches(Scan):
    """As many steps as square patches, in reading order.

    Args:
        shape: H, W, C.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: if patches do not tile the image.
    """

    def __init__(self, shape: Sequence[int], *, patch_size: int = 4) -> None:
        super().__init__(shape)
        check_tiling(shape, patch_size)
        self.patch_size = patch_size

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [patches(grid, self.patch_size).flatten(1, 2)]


class Snake(Scan):
    """T = H·W steps, every other row from right to left, so that two steps in a row are always neighbours."""

    def forward(self, grid: Tensor) -> list[Tensor]:
        odd = torch.arange(grid.shape[1], device=grid.device) % 2 == 1  # H
        return [torch.where(odd[None, :, None, None], grid.flip(2), grid).flatten(1, 2)]


class Whole(Scan):
    """T = 1: the image as one step."""

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid.flatten(1).unsqueeze(1)]  # B 1 H·W·C


class Grid(Scan):
    """The grid itself (B, H, W, C)."""

    grid = True

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [grid]


class PatchGrid(Patches):
    """The grid of square patches.

    Args:
        shape: H, W, C.
        patch_size: side of a patch in pixels.
    """

    grid = True

    def forward(self, grid: Tensor) -> list[Tensor]:
        return [patches(grid, self.patch_size)]


SCANS: dict[str, type[Scan]] = {
    "rows": Rows,
    "columns": Columns,
    "rows+columns": RowsAndColumns,
    "pixels": Pixels,
    "permuted": Permuted,
    "patches": Patches,
    "snake": Snake,
    "whole": Whole,
    "grid": Grid,
    "patch-grid": PatchGrid,
}


def patches(grid: Tensor, size: int) -> Tensor:
    """Square patches, each flattened to one cell: (B, H, W, C) to (B, H/size, W/size, size·size·C)."""
    cells = grid.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # B H/size size W/size size C
    flattened: Tensor = cells.transpose(2, 3).flatten(3)
    return flattened


def check_tiling(shape: Sequence[int], size: int) -> None:
    """Raises ValueError if patches of this size do not tile (H, W, ...)."""
    height, width = shape[:2]
    if size < 1 or height % size or width % size:
        sizes = ", ".join(str(side) for side in range(1, 1 + min(height, width)) if height % side + width % side == 0)
        raise ValueError(f"patch_size {size} does not tile {height}×{width}; use one of {sizes}")
