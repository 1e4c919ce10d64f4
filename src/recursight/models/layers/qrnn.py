"""Quasi-recurrent network (Bradbury et al., 2017, arXiv:1611.01576, eqs. 1-4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.linear_scan import linear_scan
from recursight.models.layers.recurrence import Recurrence, State, glorot, widened


class QRNN(Recurrence):
    """z = tanh, f, o = σ of V [x[t-k+1] ... x[t]] + b;  c[t] = f c[t-1] + (1 - f) z;  h[t] = o c[t] (fo-pooling).

    Gates see a window of k inputs, never the state, so c is linear in c[t-1] and all steps are computed at once.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        window: k, inputs that a gate sees; those before the first step are zero.
    """

    states = ("h", "c")

    def __init__(self, features: int, hidden: int, *, window: int = 2) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1; it is {window}")
        super().__init__(features, hidden)
        self.window = window
        self.input = nn.Linear(window * features, 3 * hidden)  # candidate, forget gate, output gate
        glorot(self.input.weight, 3)
        nn.init.zeros_(self.input.bias)

    def forward(self, steps: Tensor) -> Tensor:
        if native.usable(steps):
            return native.sequence("qrnn", self.prepare(steps), self.input.weight, self.input.bias, hidden=self.hidden)
        candidate, forget, out = widened(self.input(self.prepare(steps))).chunk(3, dim=-1)  # each B T H
        c = linear_scan(torch.sigmoid(forget), torch.sigmoid(-forget) * torch.tanh(candidate))
        return torch.sigmoid(out) * c

    def prepare(self, inputs: Tensor) -> Tensor:
        """Each step's window, oldest input first: (B, T, k·D)."""
        padded = F.pad(inputs, (0, 0, self.window - 1, 0))
        steps = inputs.shape[1]
        return torch.cat([padded[:, back : back + steps] for back in range(self.window)], dim=-1)

    def step(self, x: Tensor, state: State) -> State:
        candidate, forget, out = self.input(x).chunk(3, dim=-1)
        f = torch.sigmoid(forget)
        c = f * state[1] + (1 - f) * torch.tanh(candidate)
        return torch.sigmoid(out) * c, c
