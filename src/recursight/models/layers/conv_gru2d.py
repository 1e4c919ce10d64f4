"""Convolutional GRU (Ballas et al., 2016, arXiv:1511.06432, eqs. 5-8), with the reset gate after the convolution."""

import torch
from torch import Tensor, nn

from recursight.models.layers.map_recurrence import MapRecurrence


class ConvGRU2D(MapRecurrence):
    """r, z = σ(V * x[t] + W * h[t-1] + b);  n = tanh(V' * x[t] + b' + r (W' * h[t-1] + b''));  * convolves.

    h[t] = (1 - z) n + z h[t-1]. As in `gru` the reset gate multiplies the convolution, not the state before it, so that
    one convolution of the state is enough for all gates.

    Args:
        features: size D of one pixel.
        hidden: size of the state of one pixel.
        kernel: side of both convolutions' windows, odd.
    """

    name = "conv_gru2d"
    gates = 3

    def __init__(self, features: int, hidden: int, *, kernel: int = 3) -> None:
        super().__init__(features, hidden, kernel=kernel)
        self.state_bias = nn.Parameter(torch.zeros(hidden))

    @property
    def cell(self) -> str:
        return "conv_gru"

    @property
    def bias(self) -> Tensor:
        return torch.cat([super().bias, self.state_bias])
