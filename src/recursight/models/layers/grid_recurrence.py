"""Recurrences in two dimensions, from one corner or from all four."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, family, glorot


class GridRecurrence(Recurrence):
    """A state for each pixel, from its left and upper neighbours' states.

    Args:
        features: size D of one pixel.
        hidden: size H of the state of one pixel and direction.
        directions: 1, from the top left corner, or 4, from each corner with weights of its own; states side by side.

    Attributes:
        gates: blocks of H in the products.
    """

    grid = True
    gives_grid = True
    gates: ClassVar[int]

    def __init__(self, features: int, hidden: int, *, directions: int = 1) -> None:
        if directions not in (1, 4):
            raise ValueError(f"directions must be 1 or 4; it is {directions}")
        super().__init__(features, hidden)
        self.directions = directions
        self.causal = directions == 1
        self.input = nn.Linear(features, directions * self.gates * hidden)
        self.recurrent = nn.Parameter(torch.empty(directions, self.gates * hidden, 2 * hidden))  # from left, from above
        glorot(self.input.weight, directions * self.gates)
        nn.init.zeros_(self.input.bias)
        # Two neighbours feed a state: halved, the product neither shrinks nor grows along the way.
        for weights in self.recurrent.data.flatten(0, 1).chunk(directions * self.gates):
            for block in weights.split(hidden, dim=1):
                nn.init.orthogonal_(block, gain=0.5)

    @property
    def width(self) -> int:
        return self.directions * self.hidden

    def finals(self, sizes: Sequence[int]) -> list[int]:
        height, width = sizes
        corners = [-1, (height - 1) * width, width - 1, 0]
        return corners[: self.directions]

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """From one corner it can go on below a row: each part of the state is (B, W, H)."""
        if not self.causal:
            self.refuse(state)
        outputs, carried = self._read(inputs, state)
        return outputs, (outputs[:, -1], *carried) if self.causal else ()

    def last(self, inputs: Tensor) -> Tensor:
        return self._read(inputs, None, last=True)[0]

    def _read(self, inputs: Tensor, state: State | None, *, last: bool = False) -> tuple[Tensor, State]:
        weights = self.input.weight, self.input.bias, self.recurrent
        return operators.grid(family(self), inputs, *weights, state=state, last=last)
