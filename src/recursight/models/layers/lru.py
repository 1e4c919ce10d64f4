"""Linear recurrent unit (Orvieto et al., 2023, arXiv:2303.06349, sec. 3 and appendix A)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.linear_scan import linear_scan
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

    def forward(self, steps: Tensor) -> Tensor:
        real, imaginary, scale = self._eigenvalues()
        if not native.usable(steps):
            update = (self.input(steps) * scale.repeat(2)).chunk(2, dim=-1)  # each B T H/2
            states = linear_scan(torch.complex(real, imaginary), torch.complex(*update))
            return self._gated(steps, states.real, states.imag)
        weights = self.input.weight * scale.repeat(2).unsqueeze(1)
        parts = native.sequence(
            "lru",
            steps,
            weights,
            weights.new_zeros(2 * self.pairs),
            vectors=torch.cat([real, imaginary]),
            hidden=self.pairs,
            outputs=2,
        )
        gated = native.sequence(
            "glu", torch.cat([parts, steps], dim=-1), self.output.weight, self.output.bias, hidden=self.hidden
        )
        return gated + steps if self.features == self.hidden else gated

    def initial_state(self, x: Tensor) -> State:
        half = x.new_zeros(x.shape[0], self.pairs)
        return x.new_zeros(x.shape[0], self.hidden), half, half

    def step(self, x: Tensor, state: State) -> State:
        _, real, imaginary = state
        a, b, scale = self._eigenvalues()
        update_real, update_imaginary = self.input(x).chunk(2, dim=-1)
        real, imaginary = (
            a * real - b * imaginary + scale * update_real,
            a * imaginary + b * real + scale * update_imaginary,
        )
        return self._gated(x, real, imaginary), real, imaginary

    def _eigenvalues(self) -> tuple[Tensor, Tensor, Tensor]:
        """λ's real and imaginary part, and γ, each (H/2,)."""
        rate, angle = torch.exp(self.decay), torch.exp(self.angle)
        radius = torch.exp(-rate)
        return radius * torch.cos(angle), radius * torch.sin(angle), torch.sqrt(-torch.expm1(-2 * rate))

    def _gated(self, x: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        """What follows the recurrence: x (..., D) and the state (..., H/2) to (..., H)."""
        gated = F.glu(self.output(torch.cat([real, imaginary, x], dim=-1)), dim=-1)
        return gated + x if self.features == self.hidden else gated
