"""The parallel form of linear recurrences: h[t] = a[t] ⊙ h[t-1] + b[t] for all t at once.

Time is cut into chunks of about √T steps (Blelloch, 1990, "Prefix sums and their applications", sec. 1.4, with chunks
for processors): all chunks run side by side from a zero state, then the state at each chunk's start is carried over.
As long as |a| ≤ 1, every product of a's only shrinks, so nothing overflows and no logarithms are needed.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_scan(decay: Tensor, update: Tensor) -> Tensor:
    """The states (B, T, H) from h[-1] = 0.

    Args:
        decay: a, real or complex, (B, T, H) or, where it is the same for all, (H,).
        update: b, (B, T, H).
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        states: Tensor = _LinearScan.apply(decay, update)  # type: ignore[no-untyped-call]
        return states
    return chunked(decay, update)


class _LinearScan(torch.autograd.Function):
    """The gradient that reaches h[t] is a scan in reverse: g[t] = ∂h[t] + ā[t+1] g[t+1]; b gets g, a gets g h̄[t-1]."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, update: Tensor) -> Tensor:
        states = chunked(decay, update)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        later = decay if decay.dim() == 1 else F.pad(decay[:, 1:], (0, 0, 0, 1)).flip(1)  # a[t+1], last step first
        total = chunked(later.conj(), gradient.flip(1)).flip(1)
        before = F.pad(states[:, :-1], (0, 0, 1, 0))
        for_decay = total * before.conj()
        return (for_decay.sum(dim=(0, 1)) if decay.dim() == 1 else for_decay), total


def chunked(decay: Tensor, update: Tensor) -> Tensor:
    """`linear_scan` without a gradient of its own: 2·√T dependent operations instead of T."""
    batch, steps, hidden = update.shape
    length = max(1, math.isqrt(steps))
    count = -(-steps // length)
    padding = count * length - steps
    b = F.pad(update, (0, 0, 0, padding)).reshape(batch, count, length, hidden)
    if decay.dim() == 1:
        a = decay.expand(1, 1, length, hidden)
    else:
        a = F.pad(decay, (0, 0, 0, padding)).reshape(batch, count, length, hidden)
    local, reach = [b[:, :, 0]], [a[:, :, 0]]  # state of a chunk from zero; share of its start that is left
    for step in range(1, length):
        local.append(torch.addcmul(b[:, :, step], a[:, :, step], local[-1]))
        reach.append(a[:, :, step] * reach[-1])
    starts = [torch.zeros_like(local[-1][:, 0])]
    ends, left = local[-1], reach[-1].expand(-1, count, hidden)
    for chunk in range(count - 1):
        starts.append(torch.addcmul(ends[:, chunk], left[:, chunk], starts[-1]))
    start = torch.stack(starts, dim=1).unsqueeze(2)  # B count 1 H
    states = torch.addcmul(torch.stack(local, dim=2), torch.stack(reach, dim=2), start)
    return states.flatten(1, 2)[:, :steps]
