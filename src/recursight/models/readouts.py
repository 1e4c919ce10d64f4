"""Readouts: how the states over time become one vector. (B, T, H) in, (B, H) out.

Each is made from the width H and from the step at which each equal share of H has read everything; keyword-only
arguments are its options in `params.yaml`.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import State, last
from recursight.models.packed import within


class Readout(nn.Module):
    """(B, T, H) to (B, H), for images all at once, for clips also part by part.

    Args:
        width: H, all directions together.
        finals: for each direction's share of H, the step at which it ends.

    Attributes:
        causal: whether what it gives for the steps so far needs no later ones.
    """

    causal: ClassVar[bool] = True

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__()
        self.finals = list(finals)

    def forward(self, states: Tensor) -> Tensor:
        """All steps at once."""
        raise NotImplementedError

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        """The vector of all steps so far, and what it takes to go on.

        Args:
            states: of the next steps, (B, T, H).
            lengths: of the sequences, (B,), where they are padded at their end.
            before: what it gave for the steps before; empty, or zeros, at the start.
        """
        raise NotImplementedError


class Last(Readout):
    """The state that has read everything: after the last step, or of a backward half, after the first."""

    def forward(self, states: Tensor) -> Tensor:
        return last(states, self.finals)

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        return last(states, self.finals, lengths), ()


class Mean(Readout):
    """The mean over all steps."""

    def forward(self, states: Tensor) -> Tensor:
        return states.mean(dim=1)

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        total, count = _filled(states, lengths, 0.0).sum(dim=1), _counts(states, lengths)
        if before:
            total, count = total + before[0], count + before[1]
        return total / count, (total, count)


class Max(Readout):
    """The largest value of each feature over all steps."""

    def forward(self, states: Tensor) -> Tensor:
        return states.amax(dim=1)

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        largest, count = _filled(states, lengths, -torch.inf).amax(dim=1), _counts(states, lengths)
        if before:
            largest = torch.where(before[1] > 0, torch.maximum(largest, before[0]), largest)
            count = count + before[1]
        return largest, (largest, count)


class Attention(Readout):
    """A learned query weighs the steps (Yang et al., 2016, "Hierarchical attention networks", eqs. 5-7).

    u[t] = tanh(W h[t] + b);  a = softmax over t of u[t]·q;  out = Σ a[t] h[t]
    """

    def __init__(self, width: int, finals: Sequence[int]) -> None:
        super().__init__(width, finals)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def weights(self, states: Tensor) -> Tensor:
        """How much each step counts: (B, T), summing to 1."""
        return self._scores(states).squeeze(-1).softmax(dim=1)

    def forward(self, states: Tensor) -> Tensor:
        return (self.weights(states).unsqueeze(-1) * states).sum(dim=1)

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        return _running_softmax(self._scores(states), states, lengths, before)

    def _scores(self, states: Tensor) -> Tensor:
        scores: Tensor = self.query(torch.tanh(self.key(states)))  # B T 1
        return scores


class MultiHead(Readout):
    """Several learned queries, each of its own share of the features (Lee et al., 2019, arXiv:1810.00825, sec. 3.2).

    k, v = W h[t], W' h[t];  a = softmax over t of q·k[t] / √d, d = H / heads, by head;  out = W'' [Σ a[t] v[t]]
    (the product attention of Vaswani et al., 2017, arXiv:1706.03762, eq. 1, with a query that is learned).

    Args:
        width: H, all directions together.
        finals: as of every readout.
        heads: how many queries.

    Raises:
        ValueError: if the heads do not divide H.
    """

    def __init__(self, width: int, finals: Sequence[int], *, heads: int = 4) -> None:
        if heads < 1 or width % heads:
            divisors = ", ".join(str(number) for number in range(1, width + 1) if width % number == 0)
            raise ValueError(f"heads {heads} does not divide the {width} features of the states; use one of {divisors}")
        super().__init__(width, finals)
        self.heads = heads
        self.key_value = nn.Linear(width, 2 * width)
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        self.merge = nn.Linear(width, width)

    def weights(self, states: Tensor) -> Tensor:
        """How much each step counts for each head: (B, T, heads), summing to 1 over T."""
        return self._scores(self._by_head(states)[0]).softmax(dim=1)

    def forward(self, states: Tensor) -> Tensor:
        keys, values = self._by_head(states)
        weights = self._scores(keys).softmax(dim=1)
        return self._merged((weights.unsqueeze(-1) * values).sum(dim=1))

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        keys, values = self._by_head(states)
        vectors, after = _running_softmax(self._scores(keys).unsqueeze(-1), values, lengths, before)
        return self._merged(vectors), after

    def _by_head(self, states: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(states).chunk(2, dim=-1)
        return keys.unflatten(-1, (self.heads, -1)), values.unflatten(-1, (self.heads, -1))  # B T heads d

    def _scores(self, keys: Tensor) -> Tensor:
        scores: Tensor = (keys * self.query).sum(dim=-1) / keys.shape[-1] ** 0.5  # B T heads
        return scores

    def _merged(self, vectors: Tensor) -> Tensor:
        merged: Tensor = self.merge(vectors.flatten(1))
        return merged


class Every(Readout):
    """The states of all steps, (B, T, H): an output for each frame of a clip."""

    def forward(self, states: Tensor) -> Tensor:
        return states

    def resume(self, states: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
        return states, ()


class Middle(Last):
    """The frame in the middle of a clip, alone: no other is read, so it can only follow `layer: none`."""

    causal = False


READOUTS: dict[str, Callable[..., Readout]] = {
    "last": Last,
    "mean": Mean,
    "max": Max,
    "attention": Attention,
    "multihead": MultiHead,
}

OVER_TIME: dict[str, Callable[..., Readout]] = READOUTS | {"every": Every, "middle": Middle}
"""Of clips: the readouts, the outputs of every frame, and those of a single one."""


def _running_softmax(scores: Tensor, values: Tensor, lengths: Tensor | None, before: State) -> tuple[Tensor, State]:
    """Σ a[t] v[t] with a the softmax of the scores over all steps so far.

    What is carried are Σ e[t] v[t], Σ e[t] and m, where e[t] = exp(score - m) and m is the largest score so far
    (Milakov & Gimelshein, 2018, arXiv:1805.02867, sec. 3).

    Args:
        scores: (B, T, ..., 1).
        values: (B, T, ..., d).
        lengths: as of `Readout.resume`.
        before: as of `Readout.resume`.
    """
    scores = _filled(scores, lengths, -torch.inf)
    largest = scores.amax(dim=1)
    if before:
        largest = torch.where(before[1] > 0, torch.maximum(largest, before[2]), largest)
    shares = (scores - largest.unsqueeze(1)).exp()
    total, weight = (shares * values).sum(dim=1), shares.sum(dim=1)
    if before:
        # At the start there is nothing to rescale, and zeros are no largest score.
        kept = torch.where(before[1] > 0, before[2] - largest, 0.0).exp()
        total, weight = total + kept * before[0], weight + kept * before[1]
    return total / weight, (total, weight, largest)


def _counts(states: Tensor, lengths: Tensor | None) -> Tensor:
    """How many steps each sequence has, (B, 1)."""
    if lengths is None:
        return states.new_ones(states.shape[:2]).sum(dim=1, keepdim=True)  # of traced sizes too
    return lengths[:, None].to(states)


def _filled(states: Tensor, lengths: Tensor | None, value: float) -> Tensor:
    """(B, T, ...) with a value at each step after the end of a sequence."""
    if lengths is None:
        return states
    outside = ~within(lengths, states.shape[1]).to(states.device)
    return states.masked_fill(outside.reshape(*outside.shape, *[1] * (states.dim() - 2)), value)
