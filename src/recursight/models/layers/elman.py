"""Elman network, or vanilla RNN (Elman, 1990, "Finding structure in time")."""

from typing import Literal

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import Recurrence, State


class Elman(Recurrence):
    """h[t] = f(V x[t] + W h[t-1] + b), with f = tanh or ReLU; W starts orthogonal (Saxe et al., 2014, arXiv:1312.6120).

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        activation: f.
    """

    def __init__(self, features: int, hidden: int, *, activation: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__(features, hidden)
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation must be tanh or relu; it is {activation!r}")
        self.rnn = nn.RNN(features, hidden, nonlinearity=activation, batch_first=True)
        self.activation = torch.tanh if activation == "tanh" else torch.relu
        nn.init.xavier_uniform_(self.rnn.weight_ih_l0)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, steps: Tensor) -> Tensor:
        states: Tensor = self.rnn(steps)[0]
        return states

    def step(self, x: Tensor, state: State) -> State:
        rnn = self.rnn
        (h,) = state
        h = self.activation(x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0)
        return (h,)
