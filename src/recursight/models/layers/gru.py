"""Gated recurrent unit (Cho et al., 2014, arXiv:1406.1078, eqs. 5-8), with the reset gate after the product."""

from torch import nn

from recursight.models.layers.torch_recurrence import TorchRecurrence


class GRU(TorchRecurrence):
    """r, z = σ(V x[t] + W h[t-1] + b);  n = tanh(V' x[t] + b' + r (W' h[t-1] + b''));  h[t] = (1 - z) n + z h[t-1].

    The reset gate multiplies the product, not the state before it: the form of cuDNN, Keras and torch.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
    """

    gates = 3

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, nn.GRU(features, hidden, batch_first=True))
