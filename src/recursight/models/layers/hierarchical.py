"""Hierarchical RNN (El Hihi & Bengio, 1995, "Hierarchical recurrent neural networks for long-term dependencies")."""

from typing import Literal

from torch import Tensor

from recursight.models.layers import sweeps
from recursight.models.layers.recurrence import Layer, State


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

    @property
    def parts(self) -> int:
        return self.rows.parts

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """A grid (B, H, W, D) to an output for each row, (B, H, hidden); the state is the rows' recurrence's."""
        last = self.pixels.last(inputs.flatten(0, 1))  # B·H hidden
        outputs, state = self.rows(last.unflatten(0, (-1, inputs.shape[1])), state)
        return outputs, state
