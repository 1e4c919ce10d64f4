"""Simple recurrent unit (Lei et al., 2018, arXiv:1709.02755, eqs. 1-4)."""

import math

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class SRU(Recurrence):
    """f, r = σ(V x[t] + v ⊙ c[t-1] + b);  c[t] = f c[t-1] + (1 - f) W x[t];  h[t] = r c[t] + (1 - r) α x[t].

    All products are of inputs, and so of all steps at once; the recurrence itself is point-wise. Where D ≠ H the
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

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, _ = operators.sequence(
            "sru",
            inputs,
            self.input.weight,
            self.input.bias,
            vectors=self.recurrent.flatten(),
            state=None if state is None else state[1:],
            hidden=self.hidden,
        )
        c, r = outputs.chunk(2, dim=-1)
        h = r * c + (1 - r) * (math.sqrt(3) * self.highway(inputs))
        return h, (h[:, -1], c[:, -1])
