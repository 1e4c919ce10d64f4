"""Readouts: how the states over time become one vector. (B, T, H) in, (B, H) out.

Each is made from the width H and from the step at which each equal share of H has read everything; keyword-only
arguments are its options in `params.yaml`. Where sequences of unlike length are padded at their end, `lengths`, (B,),
says how long they are: what stands after the end of one changes nothing.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import last
from recursight.models.packed import within


class Last(nn.Module):
    """The state that has read everything: after the last step, or of a backward half, after the first.

    Args:
        width: H, all directions together.
        finals: for each direction's share of H, the step at which it ends.
    """

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()
        self.finals = list(finals)

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        return last(states, self.finals, lengths)


class Mean(nn.Module):
    """The mean over all steps."""

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            return states.mean(dim=1)
        return _filled(states, lengths, 0.0).sum(dim=1) / lengths[:, None]


class Max(nn.Module):
    """The largest value of each feature over all steps."""

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        return _filled(states, lengths, -torch.inf).amax(dim=1)


class Attention(nn.Module):
    """A learned query weighs the steps (Yang et al., 2016, "Hierarchical attention networks", eqs. 5-7).

    u[t] = tanh(W h[t] + b);  a = softmax over t of u[t]·q;  out = Σ a[t] h[t]
    """

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def weights(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How much each step counts: (B, T), summing to 1."""
        scores: Tensor = self.query(torch.tanh(self.key(states)))  # B T 1
        return _filled(scores, lengths, -torch.inf).squeeze(-1).softmax(dim=1)

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        return (self.weights(states, lengths).unsqueeze(-1) * states).sum(dim=1)


class MultiHead(nn.Module):
    """Several learned queries, each of its own share of the features (Lee et al., 2019, arXiv:1810.00825, sec. 3.2).

    k, v = W h[t], W' h[t];  a = softmax over t of q·k[t] / √d, d = H / heads, by head;  out = W'' [Σ a[t] v[t]]
    (the product attention of Vaswani et al., 2017, arXiv:1706.03762, eq. 1, with a query that is learned).

    Args:
        width: H, all directions together.
        finals: not used.
        heads: how many queries.

    Raises:
        ValueError: if the heads do not divide H.
    """

    def __init__(self, width: int, finals: Sequence[int], *, heads: int = 4) -> None:
        if heads < 1 or width % heads:
            divisors = ", ".join(str(number) for number in range(1, width + 1) if width % number == 0)
            raise ValueError(f"heads {heads} does not divide the {width} features of the states; use one of {divisors}")
        super().__init__()
        self.heads = heads
        self.key_value = nn.Linear(width, 2 * width)
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        self.merge = nn.Linear(width, width)

    def weights(self, states: Tensor) -> Tensor:
        """How much each step counts for each head: (B, T, heads), summing to 1 over T."""
        return self._weights(self._by_head(states)[0], None)

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        keys, values = self._by_head(states)
        vectors = (self._weights(keys, lengths).unsqueeze(-1) * values).sum(dim=1)  # B heads d
        merged: Tensor = self.merge(vectors.flatten(1))
        return merged

    def _by_head(self, states: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(states).chunk(2, dim=-1)
        return keys.unflatten(-1, (self.heads, -1)), values.unflatten(-1, (self.heads, -1))  # B T heads d

    def _weights(self, keys: Tensor, lengths: Tensor | None) -> Tensor:
        scores = (keys * self.query).sum(dim=-1) / keys.shape[-1] ** 0.5  # B T heads
        weights: Tensor = _filled(scores, lengths, -torch.inf).softmax(dim=1)
        return weights


class Every(nn.Module):
    """The states of all steps, (B, T, H): an output for each frame of a clip.

    Args:
        width: H, all directions together.
        finals: not used.
    """

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        return states


class Middle(Every):
    """The frame in the middle of a clip, alone: no other is read, so it can only follow `layer: none`."""

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        return states[:, 0]


READOUTS: dict[str, Callable[..., nn.Module]] = {
    "last": Last,
    "mean": Mean,
    "max": Max,
    "attention": Attention,
    "multihead": MultiHead,
}

OVER_TIME: dict[str, Callable[..., nn.Module]] = READOUTS | {"every": Every, "middle": Middle}
"""Of clips: the readouts, the outputs of every frame, and those of a single one."""


def _filled(states: Tensor, lengths: Tensor | None, value: float) -> Tensor:
    """(B, T, ...) with a value at each step after the end of a sequence."""
    if lengths is None:
        return states
    outside = ~within(lengths, states.shape[1])
    return states.masked_fill(outside.reshape(*outside.shape, *[1] * (states.dim() - 2)), value)
