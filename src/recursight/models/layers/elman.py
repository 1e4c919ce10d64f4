"""Elman network, or vanilla RNN (Elman, 1990, "Finding structure in time")."""

from typing import Literal

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import State
from recursight.models.layers.torch_recurrence import TorchRecurrence


class Elman(TorchRecurrence):
    """h[t] = f(V x[t] + W h[t-1] + b), with f = tanh or ReLU.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        activation: f.
    """

    gates = 1

    def __init__(self, features: int, hidden: int, *, activation: Literal["tanh", "relu"] = "tanh") -> None:
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation must be tanh or relu; it is {activation!r}")
        super().__init__(features, hidden, nn.RNN(features, hidden, nonlinearity=activation, batch_first=True))
        self.activation = torch.tanh if activation == "tanh" else torch.relu

    def step(self, x: Tensor, state: State) -> State:
        from_input, from_state = self.products(x, state[0])
        return (self.activation(from_input + from_state),)
