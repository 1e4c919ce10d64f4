"""Sweeping sequence layers over the rows or columns of a grid, all of them as one batch."""

from collections.abc import Callable

from torch import Tensor

from recursight.errors import nearest
from recursight.models.layers.elman import Elman
from recursight.models.layers.gru import GRU
from recursight.models.layers.lstm import LSTM
from recursight.models.layers.mingru import MinGRU
from recursight.models.layers.minlstm import MinLSTM
from recursight.models.layers.recurrence import Layer, Recurrence

CELLS: dict[str, Callable[[int, int], Recurrence]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
}


def cell(name: str, features: int, hidden: int) -> Recurrence:
    """Raises ValueError for a name that is not in `CELLS`."""
    if name not in CELLS:
        raise ValueError(f"cell {name!r} is unknown; {nearest(name, CELLS)}")
    return CELLS[name](features, hidden)


def along_rows(layer: Layer, grid: Tensor) -> Tensor:
    """Each row of (B, H, W, D) as a sequence of W steps, into (B, H, W, D')."""
    lines: Tensor = layer(grid.flatten(0, 1))[0]  # B·H W D'
    return lines.reshape(-1, grid.shape[1], *lines.shape[1:])


def along_columns(layer: Layer, grid: Tensor) -> Tensor:
    """Each column of (B, H, W, D) as a sequence of H steps, into (B, W, H, D')."""
    return along_rows(layer, grid.transpose(1, 2)).transpose(1, 2)
