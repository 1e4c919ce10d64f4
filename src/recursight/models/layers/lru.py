"""Linear recurrent unit (Orvieto et al., 2023, arXiv:2303.06349, sec. 3 and appendix A)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.layers.linear_scan import linear_scan
from recursight.models.layers.recurrence import Recurrence, State, glorot


class LRU(Recurrence):
    """s[t] = λ ⊙ s[t-1] + γ ⊙ B x[t] in complex numbers;  y = Re(C s) + D x;  h = U g(y) ⊙ σ(U' g(y)) + S x, g = GELU.

    λ = exp(-exp(ν) + i exp(θ)) lies inside the unit circle whatever training does to ν and θ, and γ = √(1 - |λ|²)
    keeps the state's scale (eqs. 5-7). The recurrence is linear: what bends it is the gated unit after it, which with
    the skip S is the paper's block (fig. 1) without its normalisation.

    Args:
        features: size D of one step's input.
        hidden: size H of the output; the complex state has H entries too.
        smallest: |λ| starts in a ring of this inner radius (lemma 3.2),
        largest: and this outer one; near 1 for long sequences.
    """

    states = ("h", "real", "imaginary")

    def __init__(self, features: int, hidden: int, *, smallest: float = 0.9, largest: float = 0.999) -> None:
        if not 0 <= smallest < largest < 1:
            raise ValueError(f"smallest and largest must be 0 <= {smallest} < {largest} < 1")
        super().__init__(features, hidden)
        squared = torch.rand(hidden) * (largest**2 - smallest**2) + smallest**2
        self.decay = nn.Parameter(torch.log(-0.5 * torch.log(squared)))  # ν
        self.angle = nn.Parameter(torch.log(torch.rand(hidden) * math.tau / 10 + 1e-4))  # θ: a tenth of the circle
        self.input = nn.Linear(features, 2 * hidden, bias=False)  # B: real and imaginary rows
        self.output = nn.Linear(2 * hidden, hidden, bias=False)  # C: Re and -Im side by side
        self.through = nn.Linear(features, hidden)  # D, and the bias that D's place in the block allows
        self.gated = nn.Linear(hidden, 2 * hidden)  # U and U'
        self.skip = nn.Identity() if features == hidden else nn.Linear(features, hidden, bias=False)
        for linear, blocks in ((self.input, 2), (self.output, 1), (self.through, 1), (self.gated, 2)):
            glorot(linear.weight, blocks)

    def forward(self, steps: Tensor) -> Tensor:
        real, imaginary, scale = self._eigenvalues()
        if native.usable(steps):
            weights = self.input.weight * scale.repeat(2).unsqueeze(1)
            parts = native.sequence(
                "lru",
                steps,
                weights,
                weights.new_zeros(2 * self.hidden),
                vectors=torch.cat([real, imaginary]),
                hidden=self.hidden,
                outputs=2,
            )
            return self._block(steps, parts)
        update = self.input(steps) * scale.repeat(2)  # B T 2·H
        states = linear_scan(torch.complex(real, imaginary), torch.complex(*update.chunk(2, dim=-1)))
        return self._block(steps, torch.cat([states.real, states.imag], dim=-1))

    def step(self, x: Tensor, state: State) -> State:
        _, real, imaginary = state
        a, b, scale = self._eigenvalues()
        update_real, update_imaginary = self.input(x).chunk(2, dim=-1)
        real, imaginary = (
            a * real - b * imaginary + scale * update_real,
            a * imaginary + b * real + scale * update_imaginary,
        )
        return self._block(x, torch.cat([real, imaginary], dim=-1)), real, imaginary

    def _eigenvalues(self) -> tuple[Tensor, Tensor, Tensor]:
        """λ's real and imaginary part, and γ, each (H,)."""
        rate, angle = torch.exp(self.decay), torch.exp(self.angle)
        radius = torch.exp(-rate)
        return radius * torch.cos(angle), radius * torch.sin(angle), torch.sqrt(-torch.expm1(-2 * rate))

    def _block(self, x: Tensor, parts: Tensor) -> Tensor:
        """What follows the recurrence: x (..., D) and the state's parts (..., 2·H) to (..., H)."""
        y = F.gelu(self.output(parts) + self.through(x))
        skipped: Tensor = self.skip(x)
        return F.glu(self.gated(y), dim=-1) + skipped
