"""Examples of unlike length: packed, the frames of all one after another; or padded, for layers that read a batch."""

import torch
from torch import Tensor


def starts(lengths: Tensor) -> Tensor:
    """Where each example begins among the packed frames, (B,)."""
    return lengths.cumsum(0) - lengths


def places(lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Of each of the packed frames, its example and its position within the example: (F,) each.

    Args:
        lengths: of the examples, (B,).
        frames: their sum, which is not read from the device.
    """
    examples = torch.arange(len(lengths), device=lengths.device)
    rows = examples.repeat_interleave(lengths, output_size=frames)
    return rows, torch.arange(frames, device=lengths.device) - starts(lengths)[rows]


def pad(packed: Tensor, lengths: Tensor) -> Tensor:
    """(F, ...) to (B, T, ...), with zeros after the end of each example."""
    padded = packed.new_zeros(len(lengths), int(lengths.max()), *packed.shape[1:])
    padded[places(lengths, len(packed))] = packed
    return padded


def unpad(padded: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """(B, T, ...) to (F, ...): what stands after the end of an example is dropped."""
    return padded[places(lengths, frames)]


def within(lengths: Tensor, steps: int) -> Tensor:
    """Whether a step belongs to the example: (B, T)."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def reverse_each(padded: Tensor, lengths: Tensor) -> Tensor:
    """Each example backwards, (B, T, ...); what stands after its end stays there."""
    steps = torch.arange(padded.shape[1], device=padded.device)
    order = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # B T
    return padded[torch.arange(len(padded), device=padded.device)[:, None], order]
