"""Independently recurrent network (Li et al., 2018, arXiv:1803.04831, eq. 2)."""

from typing import Literal

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class IndRNN(Recurrence):
    """h[t] = f(V x[t] + u ⊙ h[t-1] + b): a neuron remembers itself alone; layers above mix the neurons.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        activation: f, ReLU in the paper.
    """

    def __init__(self, features: int, hidden: int, *, activation: Literal["relu", "tanh"] = "relu") -> None:
        if activation not in ("relu", "tanh"):
            raise ValueError(f"activation must be relu or tanh; it is {activation!r}")
        super().__init__(features, hidden)
        self.activation = activation
        self.input = nn.Linear(features, hidden)
        self.recurrent = nn.Parameter(torch.rand(hidden))  # from forgetting at once to keeping all (sec. 4.1)
        glorot(self.input.weight, 1)
        nn.init.zeros_(self.input.bias)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, _ = operators.sequence(
            f"indrnn_{self.activation}",
            inputs,
            self.input.weight,
            self.input.bias,
            vectors=self.recurrent,
            state=state,
            hidden=self.hidden,
        )
        return outputs, (outputs[:, -1],)
