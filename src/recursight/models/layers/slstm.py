"""sLSTM, the scalar memory of the extended LSTM (Beck et al., 2024, arXiv:2405.04517, eqs. 8-17)."""

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
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

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if state is not None:  # zeros are the state before the first step, where the scale is that of nothing
            h, c, n, m = state
            state = h, c, n, torch.where(n == 0, -1e30, m)
        outputs, (c, n, m) = operators.sequence(
            "slstm",
            inputs,
            self.input.weight,
            self.input.bias,
            from_state=self.recurrent.weight,
            state=state,
            hidden=self.hidden,
        )
        return outputs, (outputs[:, -1], c, n, m.detach())
