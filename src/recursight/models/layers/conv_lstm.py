"""Convolutional LSTM (Shi et al., 2015, arXiv:1506.04214, eq. 3)."""

import torch
from torch import Tensor, nn

from recursight.models.layers.map_recurrence import MapRecurrence


class ConvLSTM(MapRecurrence):
    """i, f, o = σ, g = tanh of V * x[t] + W * h[t-1] + b;  c[t] = f c[t-1] + i g;  h[t] = o tanh(c[t]); * convolves.

    The paper's gates also see the cell, i and f that of the step before, o the present one: with `peepholes`, by one
    weight for each feature instead of one for each feature and position, so that the layer still treats all positions
    alike and reads maps of any size. They are off by default: of eight variants of the LSTM they made no difference
    (Greff et al., 2017, arXiv:1503.04069, sec. 5).

    Args:
        features: size D of one pixel.
        hidden: size of the state of one pixel.
        kernel: side of both convolutions' windows, odd.
        forget_bias: where the forget gate's bias starts; 1 keeps memories at first (Jozefowicz et al., 2015).
        peepholes: whether the gates also see the cell.
    """

    name = "conv_lstm"
    gates = 4
    states = ("h", "c")

    def __init__(
        self, features: int, hidden: int, *, kernel: int = 3, forget_bias: float = 1.0, peepholes: bool = False
    ) -> None:
        super().__init__(features, hidden, kernel=kernel)
        nn.init.constant_(self.bias.data[hidden : 2 * hidden], forget_bias)
        self.peepholes = nn.Parameter(torch.zeros(3 * hidden)) if peepholes else None

    @property
    def cell(self) -> str:
        return "conv_lstm" if self.peepholes is None else "conv_lstm_peepholes"

    @property
    def vectors(self) -> Tensor | None:
        return self.peepholes
