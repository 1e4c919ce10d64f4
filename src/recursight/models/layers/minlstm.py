"""Minimal LSTM, trained in parallel (Feng et al., 2024, arXiv:2410.01201, sec. 3.2)."""

from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class MinLSTM(Recurrence):
    """f, i = σ(V x[t] + b);  h[t] = f/(f + i) h[t-1] + i/(f + i) (V' x[t] + b').

    The two shares sum to 1, so the state stays on the scale of its candidates.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
        forget_bias: where the forget gate's bias starts.
    """

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, 3 * hidden)  # forget gate, input gate, candidate
        glorot(self.input.weight, 3)
        nn.init.zeros_(self.input.bias)
        nn.init.constant_(self.input.bias.data[:hidden], forget_bias)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, _ = operators.sequence(
            "minlstm", inputs, self.input.weight, self.input.bias, state=state, hidden=self.hidden
        )
        return outputs, (outputs[:, -1],)
