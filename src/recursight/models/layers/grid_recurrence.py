"""Recurrences in two dimensions, read by anti-diagonals, from one corner or from all four.

Pixels of one anti-diagonal do not depend on each other, so a step is a whole anti-diagonal: H + W - 1 steps instead of
H·W. The grid is skewed so that an anti-diagonal becomes a column: row i moves right by i.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.recurrence import Recurrence, State, glorot, widened

FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
"""Axes (rows 0, columns 1) read backwards by the directions from top left, top right, bottom left, bottom right."""


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

    def cell(self, products: Tensor, left: State, above: State) -> State:
        """The state from V x + W [h left, h above] + b (..., gates·H) and both neighbours' states (..., H)."""
        raise NotImplementedError

    def forward(self, grid: Tensor) -> Tensor:
        """Natively pixel by pixel; else by anti-diagonals, all directions in one batched product a step."""
        if native.usable(grid):
            return self._native(grid)
        steps = self.prepare(grid).permute(3, 1, 0, 2, 4).contiguous()  # diagonals directions B rows G·H
        _, directions, batch, rows, _ = steps.shape
        state: State = tuple(widened(steps.new_zeros(directions, batch, rows, self.hidden)) for _ in self.states)
        weights = self.recurrent.transpose(1, 2)  # directions 2·H G·H
        outputs = []
        for diagonal, x in enumerate(steps.unbind(dim=0)):
            above = tuple(F.pad(part[:, :, :-1], (0, 0, 1, 0)) for part in state)
            neighbours = torch.cat([state[0], above[0]], dim=-1).flatten(1, 2)  # directions B·rows 2·H
            products = torch.baddbmm(x.flatten(1, 2), neighbours, weights).unflatten(1, (batch, rows))
            state = _started(self.cell(widened(products), state, above), diagonal)
            outputs.append(state[0])
        return self._unskewed(torch.stack(outputs, dim=3).transpose(0, 1), grid.shape[2])

    def last(self, inputs: Tensor) -> Tensor:
        return self._native(inputs, last=True) if native.usable(inputs) else super().last(inputs)

    def _native(self, grid: Tensor, *, last: bool = False) -> Tensor:
        cell = type(self).__name__.lower()
        return native.grid(cell, grid, self.input.weight, self.input.bias, self.recurrent, last=last)

    def prepare(self, inputs: Tensor) -> Tensor:
        """V x + b, each direction's flipped to begin at the top left: (B, directions, rows, diagonals, G·H)."""
        products = self.input(inputs).chunk(self.directions, dim=-1)
        turned = [product.flip([axis + 1 for axis in axes]) for product, axes in zip(products, FLIPS, strict=False)]
        return torch.stack([skew(product) for product in turned], dim=1)

    def unroll(self, inputs: Tensor) -> list[State]:
        """The states (B, directions, rows, H) of each anti-diagonal; rows outside the image are zero."""
        steps = self.prepare(inputs)
        state: State = tuple(steps.new_zeros(*steps.shape[:3], self.hidden) for _ in self.states)
        states: list[State] = []
        for diagonal, x in enumerate(steps.unbind(dim=3)):
            state = _started(self.step(x, state), diagonal)
            states.append(state)
        return states

    def step(self, x: Tensor, state: State) -> State:
        """One anti-diagonal: V x + b (B, directions, rows, G·H) and the states of the one before it."""
        # Row i of the previous anti-diagonal is the left neighbour of row i here, and row i - 1 is the one above.
        above = tuple(F.pad(part[:, :, :-1], (0, 0, 1, 0)) for part in state)
        from_left, from_above = self.recurrent.split(self.hidden, dim=2)
        products = (
            x
            + torch.einsum("bdrk,dgk->bdrg", state[0], from_left)
            + torch.einsum("bdrk,dgk->bdrg", above[0], from_above)
        )
        return self.cell(products, state, above)

    def gather(self, states: list[State], inputs: Tensor) -> Tensor:
        return self._unskewed(torch.stack([state[0] for state in states], dim=3), inputs.shape[2])

    def _unskewed(self, states: Tensor, width: int) -> Tensor:
        """(B, directions, rows, diagonals, H) to (B, rows, columns, directions·H), every direction turned back."""
        grids = [
            unskew(direction, width).flip([axis + 1 for axis in axes])
            for direction, axes in zip(states.unbind(dim=1), FLIPS, strict=False)
        ]
        return torch.cat(grids, dim=-1)


def _started(state: State, diagonal: int) -> State:
    """A row that starts further right than this diagonal has no pixel on it yet, and must not feed its first."""
    rows = torch.arange(state[0].shape[2], device=state[0].device)
    started = (rows <= diagonal)[:, None]
    return tuple(torch.where(started, part, 0.0) for part in state)


def skew(grid: Tensor) -> Tensor:
    """Moves row i right by i: (B, H, W, D) to (B, H, H + W - 1, D), padded with zeros."""
    batch, height, width, features = grid.shape
    padded = F.pad(grid, (0, 0, 0, height)).flatten(1, 2)[:, :-height]  # each row H + W long, the last H cut off
    return padded.reshape(batch, height, height + width - 1, features)


def unskew(skewed: Tensor, width: int) -> Tensor:
    """The inverse of `skew`."""
    batch, height, _, features = skewed.shape
    padded = F.pad(skewed.flatten(1, 2), (0, 0, 0, height))
    return padded.reshape(batch, height, height + width, features)[:, :, :width]
