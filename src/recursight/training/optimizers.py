"""Optimizers by name, and the learning rate over time."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from recursight.errors import InputError, nearest

Build = Callable[..., torch.optim.Optimizer]


def _eager(kind: type[torch.optim.Optimizer]) -> Build:
    """A kind of optimizer whose methods leave torch's compiler alone.

    Torch's own import it when first called, which takes 1.4 s, and turn it off around each call: for nothing, here.
    """
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD, ADAM, ADAMW = _eager(torch.optim.SGD), _eager(torch.optim.Adam), _eager(torch.optim.AdamW)
ADAGRAD, RMSPROP = _eager(torch.optim.Adagrad), _eager(torch.optim.RMSprop)

# Each takes the parameters and: lr, weight_decay, momentum.
OPTIMIZERS: dict[str, Build] = {
    "sgd": lambda weights, momentum, **rest: SGD(weights, fused=True, **rest),
    "momentum": lambda weights, momentum, **rest: SGD(weights, momentum=momentum, fused=True, **rest),
    "adagrad": lambda weights, momentum, **rest: ADAGRAD(weights, **rest),
    "rmsprop": lambda weights, momentum, **rest: RMSPROP(weights, momentum=momentum, **rest),
    "adam": lambda weights, momentum, **rest: ADAM(weights, fused=True, **rest),
    "adamw": lambda weights, momentum, **rest: ADAMW(weights, fused=True, **rest),
}

REPLAYABLE = (torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adam, torch.optim.AdamW)
"""Those whose step a CUDA graph can hold."""


def build_optimizer(
    name: str, weights: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """Raises InputError for a name that is not in `OPTIMIZERS`."""
    if name not in OPTIMIZERS:
        raise InputError(f"train.optimizer: {name!r} is unknown; {nearest(name, OPTIMIZERS)}")
    optimizer = OPTIMIZERS[name](weights, lr=learning_rate, weight_decay=weight_decay, momentum=momentum)
    if isinstance(optimizer, REPLAYABLE):
        for group in optimizer.param_groups:
            if (device := group["params"][0].device).type == "cuda":
                _keep_on_device(group, device)
    return optimizer


def _keep_on_device(group: dict[str, Any], device: torch.device) -> None:
    """Rate and count of the steps, so that a step that is replayed there reads them anew."""
    group["lr"] = torch.tensor(group["lr"], device=device)
    if "capturable" in group:
        group["capturable"] = True


def learning_rate_at(
    step: int, *, highest: float, schedule: str, steps_per_epoch: int, epochs: int, warmup_epochs: int
) -> float:
    """The learning rate of an optimizer step, counted from 0 over the whole training.

    A linear rise over the warm-up (Goyal et al., 2017, arXiv:1706.02677), then constant, or half a cosine down to
    zero (Loshchilov & Hutter, 2017, arXiv:1608.03983, eq. 5 without restarts).
    """
    warmup_steps = min(warmup_epochs, epochs - 1) * steps_per_epoch
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    if schedule == "constant":
        return highest
    progress = (step - warmup_steps) / max(1, epochs * steps_per_epoch - warmup_steps)
    return highest * (1 + math.cos(math.pi * progress)) / 2
