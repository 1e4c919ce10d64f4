"""Gated recurrent unit (Cho et al., 2014, arXiv:1406.1078, eqs. 5-8), with the reset gate after the product."""

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import State
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

    def biases(self) -> Tensor:
        """Of r and z, of V' x, and of W' h, which r multiplies."""
        from_input, from_state = self._weight("bias_ih_l0"), self._weight("bias_hh_l0")
        gates = 2 * self.hidden
        return torch.cat([from_input[:gates] + from_state[:gates], from_input[gates:], from_state[gates:]])

    def step(self, x: Tensor, state: State) -> State:
        (h,) = state
        from_input, from_state = (product.chunk(3, dim=-1) for product in self.products(x, h))
        r = torch.sigmoid(from_input[0] + from_state[0])
        z = torch.sigmoid(from_input[1] + from_state[1])
        n = torch.tanh(from_input[2] + r * from_state[2])
        return ((1 - z) * n + z * h,)
