"""Recurrences over maps: what is a product in a recurrence over vectors is a convolution here."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot, orthogonal


class MapRecurrence(Recurrence):
    """A state for each pixel of a map, from the input's and the state's maps around it: (B, T, H, W, D) to (B, T, H, W,
    hidden); each part of the state is (B, H, W, hidden).

    Args:
        features: size D of one pixel.
        hidden: size of the state of one pixel.
        kernel: side of both convolutions' windows, odd.

    Attributes:
        gates: blocks in the input's and in the state's convolution.
    """

    maps = True
    gates: ClassVar[int]

    def __init__(self, features: int, hidden: int, *, kernel: int = 3) -> None:
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, such as 3, so that a window has a middle; it is {kernel}")
        super().__init__(features, hidden)
        self.input = nn.Conv2d(features, self.gates * hidden, kernel)
        self.recurrent = nn.Conv2d(hidden, self.gates * hidden, kernel, bias=False)
        glorot(self.input.weight, self.gates)
        orthogonal(self.recurrent.weight, self.gates)
        assert self.input.bias is not None
        nn.init.zeros_(self.input.bias)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As of every layer; with `lengths`, (B,), the state is that after each clip's own end."""
        outputs, carried = operators.maps(
            self.cell,
            inputs,
            self.input.weight,
            self.bias,
            self.recurrent.weight,
            vectors=self.vectors,
            state=state,
            lengths=None if lengths is None else lengths.tolist(),
        )
        if lengths is None:
            return outputs, (outputs[:, -1], *carried)
        return outputs, (outputs[torch.arange(len(lengths)), lengths - 1], *carried)

    @property
    def cell(self) -> str:
        """Its name in `kernels`."""
        return self.name

    @property
    def bias(self) -> Tensor:
        """Of all blocks of products."""
        assert self.input.bias is not None
        return self.input.bias

    @property
    def vectors(self) -> Tensor | None:
        """Weights by unit."""
        return None
