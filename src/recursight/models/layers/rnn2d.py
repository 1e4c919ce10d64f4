"""Two-dimensional RNN (Graves, Fernández & Schmidhuber, 2007, arXiv:0705.2011, eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.layers.recurrence import Recurrence, State


class RNN2D(Recurrence):
    """h[i,j] = tanh(W h[i-1,j] + W' h[i,j-1] + V x[i,j] + b): each pixel sees all above and to the left of it.

    Pixels of one anti-diagonal do not depend on each other, so a step is a whole anti-diagonal: H + W - 1 steps
    instead of H·W. The grid is skewed so that an anti-diagonal becomes a column: row i moves right by i.

    Args:
        features: size D of one pixel.
        hidden: size H of the state of one pixel.
    """

    grid = True

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, hidden)
        self.recurrent = nn.Linear(2 * hidden, hidden, bias=False)  # W' and W side by side
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)
        # Two neighbours feed a state: halved, the product neither shrinks nor grows along the way.
        for block in self.recurrent.weight.data.split(hidden, dim=1):
            nn.init.orthogonal_(block, gain=0.5)

    def forward(self, grid: Tensor) -> Tensor:
        return self.gather(self.unroll(grid), grid)

    def unroll(self, grid: Tensor) -> list[State]:
        """The states (B, rows, H) of each anti-diagonal; rows outside the image are zero."""
        rows = torch.arange(grid.shape[1], device=grid.device)
        diagonals = skew(self.input(grid))  # B rows diagonals H
        state: State = (diagonals.new_zeros(grid.shape[0], grid.shape[1], self.hidden),)
        states: list[State] = []
        for diagonal, x in enumerate(diagonals.unbind(dim=2)):
            (h,) = self.step(x, state)
            # A row that starts further right than this diagonal has no pixel on it yet, and must not feed its first.
            state = (h * (rows <= diagonal).to(h.dtype)[:, None],)
            states.append(state)
        return states

    def step(self, x: Tensor, state: State) -> State:
        """One anti-diagonal: V x + b (B, rows, H) and the states of the one before it."""
        (left,) = state  # row i of the previous anti-diagonal is the left neighbour of row i here,
        above = F.pad(left[:, :-1], (0, 0, 1, 0))  # and row i - 1 is the one above.
        return (torch.tanh(x + self.recurrent(torch.cat([left, above], dim=-1))),)

    def gather(self, states: list[State], grid: Tensor) -> Tensor:
        return unskew(torch.stack([state[0] for state in states], dim=2), grid.shape[2])


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
