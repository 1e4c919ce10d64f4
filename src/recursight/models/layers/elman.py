"""Elman network, or vanilla RNN (Elman, 1990, "Finding structure in time")."""

from typing import Literal

from torch import nn

from recursight.models.layers.torch_recurrence import TorchRecurrence


class Elman(TorchRecurrence):
    """h[t] = f(V x[t] + W h[t-1] + b), with f = tanh or ReLU.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        activation: f.
        start: what W starts as. The identity, with ReLU, is the IRNN (Le et al., 2015, arXiv:1504.00941, sec. 2): the
            state is kept as it is until training says otherwise, and V starts small, N(0, 0.001).
    """

    gates = 1

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        activation: Literal["tanh", "relu"] = "tanh",
        start: Literal["orthogonal", "identity"] = "orthogonal",
    ) -> None:
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation must be tanh or relu; it is {activation!r}")
        if start not in ("orthogonal", "identity"):
            raise ValueError(f"start must be orthogonal or identity; it is {start!r}")
        super().__init__(features, hidden, nn.RNN(features, hidden, nonlinearity=activation, batch_first=True))
        self.activation = activation
        if start == "identity":
            nn.init.eye_(self.rnn.get_parameter("weight_hh_l0"))
            nn.init.normal_(self.rnn.get_parameter("weight_ih_l0"), std=0.001)

    @property
    def kernel(self) -> str:
        return f"elman_{self.activation}"
