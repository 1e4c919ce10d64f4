"""Gated recurrent unit (Cho et al., 2014, arXiv:1406.1078, eqs. 5-8), with the reset gate after the product."""

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import Recurrence, State


class GRU(Recurrence):
    """r, z = σ(V x[t] + W h[t-1] + b);  n = tanh(V' x[t] + b' + r (W' h[t-1] + b''));  h[t] = (1 - z) n + z h[t-1].

    The reset gate multiplies the product, not the state before it: the form of cuDNN, Keras and torch.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.rnn = nn.GRU(features, hidden, batch_first=True)
        for gate in range(3):
            block = slice(gate * hidden, (gate + 1) * hidden)
            nn.init.xavier_uniform_(self.rnn.weight_ih_l0.data[block])
            nn.init.orthogonal_(self.rnn.weight_hh_l0.data[block])
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, steps: Tensor) -> Tensor:
        states: Tensor = self.rnn(steps)[0]
        return states

    def step(self, x: Tensor, state: State) -> State:
        rnn = self.rnn
        (h,) = state
        from_input = (x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0).chunk(3, dim=-1)
        from_state = (h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0).chunk(3, dim=-1)
        r = torch.sigmoid(from_input[0] + from_state[0])
        z = torch.sigmoid(from_input[1] + from_state[1])
        n = torch.tanh(from_input[2] + r * from_state[2])
        return ((1 - z) * n + z * h,)
