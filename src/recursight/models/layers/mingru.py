"""Minimal GRU, trained in parallel (Feng et al., 2024, arXiv:2410.01201, sec. 3.1)."""

from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class MinGRU(Recurrence):
    """z = σ(V x[t] + b);  h[t] = (1 - z) h[t-1] + z (V' x[t] + b').

    The gate sees the input alone, so h is linear in h[t-1] and all steps are computed at once. The factors 1 - z lie
    in (0, 1): the scan is stable as it is, without the logarithms of the paper's appendix B.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.input = nn.Linear(features, 2 * hidden)  # gate and candidate
        glorot(self.input.weight, 2)
        nn.init.zeros_(self.input.bias)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        outputs, _ = operators.sequence(
            "mingru", inputs, self.input.weight, self.input.bias, state=state, hidden=self.hidden
        )
        return outputs, (outputs[:, -1],)
