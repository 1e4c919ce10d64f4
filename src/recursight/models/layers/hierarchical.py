"""Hierarchical RNN (El Hihi & Bengio, 1995, "Hierarchical recurrent neural networks for long-term dependencies")."""

from typing import Literal

from torch import Tensor

from recursight.models.layers import sweeps
from recursight.models.layers.recurrence import Layer, Watch, within


class Hierarchical(Layer):
    """One recurrence reads the pixels of each row, another the first one's last states, row by row.

    The path from any pixel to the end is H + W steps instead of H·W.

    Args:
        features: size D of one pixel.
        hidden: size H of both states.
        cell: the recurrence of both levels.
    """

    grid = True

    def __init__(
        self, features: int, hidden: int, *, cell: Literal["elman", "lstm", "gru", "mingru", "minlstm"] = "lstm"
    ) -> None:
        super().__init__(features, hidden)
        self.pixels = sweeps.cell(cell, features, hidden)
        self.rows = sweeps.cell(cell, hidden, hidden)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, H, W, D) to a state for each row, (B, H, hidden)."""
        states: Tensor = self.rows(_last_of_rows(self.pixels(grid.flatten(0, 1)), grid))
        return states

    def observe(self, inputs: Tensor, watch: Watch) -> Tensor:
        pixels = self.pixels.observe(inputs.flatten(0, 1), within("pixels", watch))
        return self.rows.observe(_last_of_rows(pixels, inputs), within("rows", watch))


def _last_of_rows(states: Tensor, grid: Tensor) -> Tensor:
    return states[:, -1].reshape(-1, grid.shape[1], states.shape[-1])  # B H hidden
