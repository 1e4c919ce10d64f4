"""Simple recurrent unit (Lei et al., 2018, arXiv:1709.02755, eqs. 1-4)."""

import math

import torch
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.recurrence import Recurrence, State, glorot


class SRU(Recurrence):
    """f, r = σ(V x[t] + v ⊙ c[t-1] + b);  c[t] = f c[t-1] + (1 - f) W x[t];  h[t] = r c[t] + (1 - r) α x[t].

    All products are of inputs, hence of all steps at once; the recurrence itself is point-wise. Where D ≠ H the
    highway's x[t] is a product of its own, W' x[t]. The scale α = √3 keeps the variance through layers (sec. 3.2).

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
    """

    states = ("h", "c")

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, 3 * hidden)  # forget gate, reset gate, candidate
        self.recurrent = nn.Parameter(torch.empty(2, hidden).uniform_(-1, 1) * math.sqrt(3 / hidden))
        self.highway = nn.Identity() if features == hidden else nn.Linear(features, hidden, bias=False)
        glorot(self.input.weight, 3)
        nn.init.zeros_(self.input.bias)

    def forward(self, steps: Tensor) -> Tensor:
        if native.usable(steps):
            c, r = native.sequence(
                "sru",
                steps,
                self.input.weight,
                self.input.bias,
                vectors=self.recurrent.flatten(),
                hidden=self.hidden,
                outputs=2,
            ).chunk(2, dim=-1)
            return _output(c, r, self.highway(steps))
        products, skip = self.input(steps), self.highway(steps)
        _, c = self.initial_state(steps)
        cells, resets = [], []
        for product in products.unbind(dim=1):
            c, r = self._cell(product, c)
            cells.append(c)
            resets.append(r)
        return _output(torch.stack(cells, dim=1), torch.stack(resets, dim=1), skip)

    def step(self, x: Tensor, state: State) -> State:
        c, r = self._cell(self.input(x), state[1])
        return _output(c, r, self.highway(x)), c

    def _cell(self, product: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        forget, reset, candidate = product.chunk(3, dim=-1)
        f = torch.sigmoid(forget + self.recurrent[0] * c)
        r = torch.sigmoid(reset + self.recurrent[1] * c)
        return f * c + (1 - f) * candidate, r


def _output(c: Tensor, r: Tensor, skip: Tensor) -> Tensor:
    return r * c + (1 - r) * (math.sqrt(3) * skip)
