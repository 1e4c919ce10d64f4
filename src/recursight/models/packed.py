"""Examples of unlike length: packed, the frames of all one after another; or padded, for layers that read a batch.

Lengths, (B,) int64, are on the CPU: shapes follow from them, and reading them from a device would wait for it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


def starts(lengths: Tensor) -> Tensor:
    """Where each example begins among the packed frames, (B,)."""
    before: Tensor = lengths.cumsum(0) - lengths
    return before


def places(lengths: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each of the packed frames, its example and its position within the example: (F,) each."""
    rows = torch.repeat_interleave(lengths)
    steps = torch.arange(len(rows)) - starts(lengths)[rows]
    return rows.to(device, non_blocking=True), steps.to(device, non_blocking=True)


def pad(packed: Tensor, lengths: Tensor) -> Tensor:
    """(F, ...) to (B, T, ...), with zeros after the end of each example."""
    if _alike(lengths):
        return packed.reshape(len(lengths), -1, *packed.shape[1:])
    padded = packed.new_zeros(len(lengths), int(lengths.max()), *packed.shape[1:])
    padded[places(lengths, packed.device)] = packed
    return padded


def unpad(padded: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, ...) to (F, ...): what stands after the end of an example is dropped."""
    return padded.flatten(0, 1) if _alike(lengths) else padded[places(lengths, padded.device)]


def within(lengths: Tensor, steps: int) -> Tensor:
    """Whether a step belongs to the example: (B, T)."""
    inside: Tensor = torch.arange(steps) < lengths[:, None]
    return inside


def reverse_each(padded: Tensor, lengths: Tensor) -> Tensor:
    """Each example backwards, (B, T, ...); what stands after its end stays there."""
    steps = torch.arange(padded.shape[1])
    order = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # B T
    rows = torch.arange(len(padded), device=padded.device)
    return padded[rows[:, None], order.to(padded.device, non_blocking=True)]


class Part(NamedTuple):
    """The next frames of those examples of a batch that are not over.

    Attributes:
        examples: their positions in the batch.
        frames: positions of the part's frames among the packed ones.
        lengths: frames of each of these examples in this part.
        kept: positions of these examples in the part before.
        ended: whether an example's last frame is in this part.
    """

    examples: Tensor
    frames: Tensor
    lengths: Tensor
    kept: Tensor
    ended: Tensor


def parts(lengths: Tensor, size: int) -> Iterator[Part]:
    """Cuts the examples of a batch, all alike, into parts of at most so many frames each."""
    examples, first = torch.arange(len(lengths)), starts(lengths)
    for begin in range(0, int(lengths.max()), size):
        kept = (lengths[examples] > begin).nonzero().squeeze(1)
        examples = examples[kept]
        left = lengths[examples] - begin
        taken = left.clamp(max=size)
        rows, steps = places(taken, torch.device("cpu"))
        yield Part(examples, (first[examples] + begin)[rows] + steps, taken, kept, left <= size)


def _alike(lengths: Tensor) -> bool:
    return bool((lengths == lengths[0]).all())
