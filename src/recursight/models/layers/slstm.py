"""sLSTM, the scalar memory of the extended LSTM (Beck et al., 2024, arXiv:2405.04517, eqs. 8-17)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.recurrence import Recurrence, State, glorot, orthogonal


class SLSTM(Recurrence):
    """c[t] = f c[t-1] + i z;  n[t] = f n[t-1] + i;  h[t] = o c[t] / n[t], with an exponential input gate.

    z = tanh, i = exp, f and o = σ of V x[t] + W h[t-1] + b. Where exp would overflow, c and n are both carried divided
    by exp(m), m[t] = max(log f + m[t-1], log i): h does not change, so m needs no gradient (eqs. 15-17, appendix A.2).
    One head; no block around it.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        forget_bias: where the forget gate's bias starts.
    """

    states = ("h", "c", "n", "m")

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, 4 * hidden)  # input gate, forget gate, candidate, output gate
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        glorot(self.input.weight, 4)
        orthogonal(self.recurrent.weight, 4)
        nn.init.zeros_(self.input.bias)
        nn.init.constant_(self.input.bias.data[hidden : 2 * hidden], forget_bias)

    def initial_state(self, x: Tensor) -> State:
        """Zeros (B, H), and for m a number so low that the first step's exp(log f + m) is 0."""
        h, c, n, m = super().initial_state(x)
        return h, c, n, m - 1e30

    def forward(self, steps: Tensor) -> Tensor:
        if native.usable(steps):
            return native.sequence(
                "slstm", steps, self.input.weight, self.input.bias, from_state=self.recurrent.weight, hidden=self.hidden
            )
        state = self.initial_state(steps)
        states = []
        for x in self.input(steps).unbind(dim=1):
            state = self._cell(x + self.recurrent(state[0]), state)
            states.append(state[0])
        return torch.stack(states, dim=1)

    def step(self, x: Tensor, state: State) -> State:
        return self._cell(self.input(x) + self.recurrent(state[0]), state)

    def _cell(self, products: Tensor, state: State) -> State:
        _, c, n, m = state
        enter, forget, candidate, out = products.chunk(4, dim=-1)
        kept = F.logsigmoid(forget) + m
        m = torch.maximum(kept, enter).detach()
        f, i = torch.exp(kept - m), torch.exp(enter - m)
        c = f * c + i * torch.tanh(candidate)
        n = f * n + i
        return torch.sigmoid(out) * c / n, c, n, m
