"""Minimal LSTM, trained in parallel (Feng et al., 2024, arXiv:2410.01201, sec. 3.2)."""

import torch
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.linear_scan import linear_scan
from recursight.models.layers.recurrence import Recurrence, State, glorot, widened


class MinLSTM(Recurrence):
    """f, i = σ(V x[t] + b);  h[t] = f/(f + i) h[t-1] + i/(f + i) (V' x[t] + b').

    The two shares sum to 1, so the state stays on the scale of its candidates.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        forget_bias: where the forget gate's bias starts.
    """

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, 3 * hidden)  # forget gate, input gate, candidate
        glorot(self.input.weight, 3)
        nn.init.zeros_(self.input.bias)
        nn.init.constant_(self.input.bias.data[:hidden], forget_bias)

    def forward(self, steps: Tensor) -> Tensor:
        if native.usable(steps):
            return native.sequence("minlstm", steps, self.input.weight, self.input.bias, hidden=self.hidden)
        forget, enter, candidate = widened(self.input(steps)).chunk(3, dim=-1)  # each B T H
        # f/(f + i) = σ(log f - log i), which neither divides zero by zero nor loses a small share.
        keep = torch.nn.functional.logsigmoid(forget) - torch.nn.functional.logsigmoid(enter)
        return linear_scan(torch.sigmoid(keep), torch.sigmoid(-keep) * candidate)

    def step(self, x: Tensor, state: State) -> State:
        forget, enter, candidate = self.input(x).chunk(3, dim=-1)
        f, i = torch.sigmoid(forget), torch.sigmoid(enter)
        return (f / (f + i) * state[0] + i / (f + i) * candidate,)
