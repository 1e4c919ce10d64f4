"""Scans: in which order an image is read.

A scan takes a grid of features (B, H, W, C) and gives one or more views of it: sequences (B, T, D), each read by a
recurrent stack of its own, or the grid itself for layers that recur in two dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor


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
    "snake": snake,
    "whole": whole,
    "grid": unscanned,
}
