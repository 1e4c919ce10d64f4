"""Running mean: the yardstick without recurrence for answers that look back."""

import torch
from torch import Tensor

from recursight.models.layers.recurrence import Layer, State


class Average(Layer):
    """h[t] = (x[1] + ... + x[t]) / t: it has no weights, and gives as many features as it reads.

    Its state is the sum and the number of steps.

    Args:
        features: size D of one step's input.
        hidden: not used.
    """

    @property
    def width(self) -> int:
        return self.features

    @property
    def parts(self) -> int:
        return 2

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        totals = inputs.cumsum(dim=1)
        counts = torch.ones_like(inputs[..., :1]).cumsum(dim=1)  # B T 1
        if state is not None:
            totals, counts = totals + state[0].unsqueeze(1), counts + state[1].unsqueeze(1)
        return totals / counts, (totals[:, -1], counts[:, -1])
