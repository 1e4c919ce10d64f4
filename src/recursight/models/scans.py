"""Scans: in which order an image is read.

A scan takes a grid of features (B, H, W, C) and gives one or more views of it: sequences (B, T, D), each read by a
recurrent stack of its own, or the grid itself for layers that recur in two dimensions.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.models.layers.recurrence import reverse


def rows(grid: Tensor) -> list[Tensor]:
    """T = H steps from top to bottom, each a whole row."""
    return [grid.flatten(2)]  # B H W·C


def columns(grid: Tensor) -> list[Tensor]:
    """T = W steps from left to right, each a whole column."""
    return [grid.transpose(1, 2).flatten(2)]  # B W H·C


def rows_and_columns(grid: Tensor) -> list[Tensor]:
    """Two views: the rows, and the columns."""
    return rows(grid) + columns(grid)


def pixels(grid: Tensor) -> list[Tensor]:
    """T = H·W steps in reading order, each one pixel."""
    return [grid.flatten(1, 2)]  # B H·W C


def snake(grid: Tensor) -> list[Tensor]:
    """T = H·W steps, every other row from right to left, so that two steps in a row are always neighbours."""
    odd = torch.arange(grid.shape[1], device=grid.device) % 2 == 1  # H
    return pixels(torch.where(odd[None, :, None, None], grid.flip(2), grid))


def whole(grid: Tensor) -> list[Tensor]:
    """T = 1: the image as one step."""
    return [grid.flatten(1).unsqueeze(1)]  # B 1 H·W·C


def unscanned(grid: Tensor) -> list[Tensor]:
    """The grid itself (B, H, W, C)."""
    return [grid]


SCANS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "rows": rows,
    "columns": columns,
    "rows+columns": rows_and_columns,
    "pixels": pixels,
    "permuted": pixels,  # then shuffled, the same way for every image
    "patches": pixels,  # of the grid of patches
    "snake": snake,
    "whole": whole,
    "grid": unscanned,
    "patch-grid": unscanned,  # of patches
}
OF_PATCHES = ("patches", "patch-grid")
GRIDS = ("grid", "patch-grid")


class Scan(nn.Module):
    """(B, H, W, C) to views.

    Args:
        name: of `SCANS`.
        shape: H, W, C.
        patch_size: side of a patch in pixels, for the scans of patches.
        permutation_seed: of the order of `permuted` (Le et al., 2015, arXiv:1504.00941, sec. 4.2).
        reverse: reads each view from its end; a grid from its last corner.

    Raises:
        InputError: if patches do not tile the image.
    """

    order: Tensor

    def __init__(
        self, name: str, shape: Sequence[int], *, patch_size: int, permutation_seed: int, reverse: bool
    ) -> None:
        super().__init__()
        if name in OF_PATCHES:
            check_tiling(shape, patch_size)
        self.name = name
        self.patch_size = patch_size
        self.reverse = reverse
        # RandomState's stream never changes between releases, so a seed names one order for good.
        if name == "permuted":
            order = np.random.RandomState(permutation_seed).permutation(shape[0] * shape[1])
            self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def forward(self, grid: Tensor) -> list[Tensor]:
        views = SCANS[self.name](patches(grid, self.patch_size) if self.name in OF_PATCHES else grid)
        if self.name == "permuted":
            views = [view[:, self.order] for view in views]
        return [reverse(view) for view in views] if self.reverse else views


def patches(grid: Tensor, size: int) -> Tensor:
    """Square patches, each flattened to one cell: (B, H, W, C) to (B, H/size, W/size, size·size·C)."""
    cells = grid.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # B H/size size W/size size C
    flattened: Tensor = cells.transpose(2, 3).flatten(3)
    return flattened


def check_tiling(shape: Sequence[int], size: int) -> None:
    """Raises InputError if patches of this size do not tile (H, W, ...)."""
    height, width = shape[:2]
    if height % size or width % size:
        sizes = ", ".join(str(side) for side in range(1, 1 + min(height, width)) if height % side + width % side == 0)
        raise InputError(f"patch_size: {size} does not tile {height}×{width}; use one of {sizes}.")
