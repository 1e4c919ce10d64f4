"""Readouts: how the states over time become one vector. (B, T, H) in, (B, H) out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Last(nn.Module):
    """The state after the last step; of a backward half, the state at the first, which is its last.

    Args:
        width: H, all directions together.
        directions: 1, or 2 where the second half of H was read backwards.
    """

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()
        self.forward_width = width // directions

    def forward(self, states: Tensor) -> Tensor:
        return torch.cat([states[:, -1, : self.forward_width], states[:, 0, self.forward_width :]], dim=-1)


class Mean(nn.Module):
    """The mean over all steps."""

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()

    def forward(self, states: Tensor) -> Tensor:
        return states.mean(dim=1)


class Max(nn.Module):
    """The largest value of each feature over all steps."""

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()

    def forward(self, states: Tensor) -> Tensor:
        return states.amax(dim=1)


class Attention(nn.Module):
    """A learned query weighs the steps (Yang et al., 2016, "Hierarchical attention networks", eqs. 5-7).

    u[t] = tanh(W h[t] + b);  a = softmax over t of u[t]·q;  out = Σ a[t] h[t]
    """

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def weights(self, states: Tensor) -> Tensor:
        """How much each step counts: (B, T), summing to 1."""
        scores: Tensor = self.query(torch.tanh(self.key(states)))  # B T 1
        return scores.squeeze(-1).softmax(dim=1)

    def forward(self, states: Tensor) -> Tensor:
        return (self.weights(states).unsqueeze(-1) * states).sum(dim=1)


READOUTS: dict[str, Callable[[int, int], nn.Module]] = {"last": Last, "mean": Mean, "max": Max, "attention": Attention}
