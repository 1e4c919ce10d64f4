"""Quasi-recurrent network (Bradbury et al., 2017, arXiv:1611.01576, eqs. 1-4)."""

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class QRNN(Recurrence):
    """z = tanh, f, o = σ of V [x[t-k+1] ... x[t]] + b;  c[t] = f c[t-1] + (1 - f) z;  h[t] = o c[t] (fo-pooling).

    Gates see a window of k inputs, never the state, so c is linear in c[t-1] and all steps are computed at once.
    Its state has, besides h and c, the last k - 1 inputs.

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

    @property
    def parts(self) -> int:
        return 3

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        batch, steps, features = inputs.shape
        before = inputs.new_zeros(batch, self.window - 1, features)
        if state is not None:
            before = state[2].reshape(before.shape)
        seen = torch.cat([before, inputs], dim=1)
        windows = torch.cat([seen[:, start : start + steps] for start in range(self.window)], dim=-1)  # B T k·D
        outputs, (c,) = operators.sequence(
            "qrnn",
            windows,
            self.input.weight,
            self.input.bias,
            state=None if state is None else state[1:2],
            hidden=self.hidden,
        )
        return outputs, (outputs[:, -1], c, seen[:, steps:].flatten(1))
