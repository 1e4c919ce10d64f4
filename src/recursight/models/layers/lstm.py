"""Long short-term memory (Hochreiter & Schmidhuber, 1997; with the forget gate of Gers et al., 2000)."""

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import Recurrence, State


class LSTM(Recurrence):
    """i, f, o = σ(V x[t] + W h[t-1] + b);  g = tanh(likewise);  c[t] = f c[t-1] + i g;  h[t] = o tanh(c[t]).

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        forget_bias: where the forget gate's bias starts; 1 keeps memories at first (Jozefowicz et al., 2015).
    """

    states = ("h", "c")

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(features, hidden)
        self.rnn = nn.LSTM(features, hidden, batch_first=True)
        for gate in range(4):
            block = slice(gate * hidden, (gate + 1) * hidden)
            nn.init.xavier_uniform_(self.rnn.weight_ih_l0.data[block])
            nn.init.orthogonal_(self.rnn.weight_hh_l0.data[block])
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)
        nn.init.constant_(self.rnn.bias_ih_l0.data[hidden : 2 * hidden], forget_bias)

    def forward(self, steps: Tensor) -> Tensor:
        states: Tensor = self.rnn(steps)[0]
        return states

    def step(self, x: Tensor, state: State) -> State:
        rnn = self.rnn
        h, c = state
        gates = x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0  # B 4·H
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
