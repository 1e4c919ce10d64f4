"""Linear recurrent unit (Orvieto et al., 2023, arXiv:2303.06349, sec. 3 and appendix A)."""

import math

import torch
from torch import Tensor, nn

from recursight.models.kernels import operators
from recursight.models.layers.recurrence import Recurrence, State, glorot


class LRU(Recurrence):
    """s[t] = λ ⊙ s[t-1] + γ ⊙ B x[t] in complex numbers;  y, g = Re(C s[t]) + D x[t];  h[t] = y σ(g), + x[t] if D = H.

    λ = exp(-exp(ν) + i exp(θ)) lies inside the unit circle whatever training does to ν and θ, and γ = √(1 - |λ|²)
    keeps the state's scale (eqs. 5-7). The recurrence is linear: what bends it is the gated unit, with the residual
    as in the paper's block (fig. 1), but gating the state's own product instead of a further one, and unnormalised.

    Args:
        features: size D of one step's input.
        hidden: size H of the output; the state has half as many complex numbers, so H real ones.
        smallest: |λ| starts in a ring of this inner radius (lemma 3.2),
        largest: and this outer one; near 1 for long sequences.
    """

    states = ("h", "real", "imaginary")

    def __init__(self, features: int, hidden: int, *, smallest: float = 0.9, largest: float = 0.999) -> None:
        if not 0 <= smallest < largest < 1:
            raise ValueError(
                f"smallest and largest must be 0 <= smallest < largest < 1; they are {smallest}, {largest}"
            )
        super().__init__(features, hidden)
        self.pairs = (hidden + 1) // 2
        squared = torch.rand(self.pairs) * (largest**2 - smallest**2) + smallest**2
        self.decay = nn.Parameter(torch.log(-0.5 * torch.log(squared)))  # ν
        self.angle = nn.Parameter(torch.log(torch.rand(self.pairs) * math.tau / 10 + 1e-4))  # θ: a tenth of the circle
        self.input = nn.Linear(features, 2 * self.pairs, bias=False)  # B: real rows, imaginary rows
        self.output = nn.Linear(2 * self.pairs + features, 2 * hidden)  # C, as Re and -Im, and D side by side
        glorot(self.input.weight, 2)
        glorot(self.output.weight, 2)
        nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        real, imaginary, scale = self._eigenvalues()
        weights = self.input.weight * scale.repeat(2).unsqueeze(1)
        parts, _ = operators.sequence(
            "lru",
            inputs,
            weights,
            weights.new_zeros(2 * self.pairs),
            vectors=torch.cat([real, imaginary]),
            state=None if state is None else state[1:],
            hidden=self.pairs,
        )
        outputs, _ = operators.sequence(
            "glu", torch.cat([parts, inputs], dim=-1), self.output.weight, self.output.bias, hidden=self.hidden
        )
        if self.features == self.hidden:
            outputs = outputs + inputs
        return outputs, (outputs[:, -1], *parts[:, -1].chunk(2, dim=-1))

    def _eigenvalues(self) -> tuple[Tensor, Tensor, Tensor]:
        """λ's real and imaginary part, and γ, each (H/2,)."""
        rate, angle = torch.exp(self.decay), torch.exp(self.angle)
        radius = torch.exp(-rate)
        return radius * torch.cos(angle), radius * torch.sin(angle), torch.sqrt(-torch.expm1(-2 * rate))
