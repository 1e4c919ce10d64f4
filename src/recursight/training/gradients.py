"""How a loss reaches back in time: the norm of ∂loss/∂h[t] for each step t.

Where it falls towards the first steps gradients vanish, where it rises they explode (Bengio et al., 1994; Pascanu et
al., 2013, arXiv:1211.5063, sec. 2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recursight.models.assembly import Classifier
from recursight.models.layers.recurrence import Stack, State, within


@dataclass(frozen=True)
class GradientNorm:
    """One point of the curve; a row of gradient_norms.csv.

    Attributes:
        layer: which recurrent layer, such as `0.lstm` or `rows.1.gru.backward`.
        state: the part of it, `h` or what else the layer carries.
        step: in the order in which the layer reads, from 0.
        norm: Euclidean norm of the loss's gradient with respect to the state, mean over the images.
    """

    layer: str
    state: str
    step: int
    norm: float


def gradient_norms(network: Classifier, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> list[GradientNorm]:
    """Runs the plain form of every layer, which shows each state, and asks for the loss's gradient there.

    Args:
        network: in any mode; it is left in eval mode, its gradients untouched.
        inputs: (B, H, W, C) on the network's device.
        loss: from the network's outputs, one value an example.
    """
    network.eval()
    watched: list[tuple[str, tuple[str, ...], list[State]]] = []

    def watch(name: str, parts: tuple[str, ...], states: list[State]) -> None:
        watched.append((name, parts, states))

    outputs = []
    for number, (stack, view) in enumerate(zip(network.stacks, network.views(inputs), strict=True)):
        if not isinstance(stack, Stack):
            return []  # no recurrence
        named = within(network.scan.name.split("+")[number], watch) if len(network.stacks) > 1 else watch
        outputs.append(stack.observe(view, named))
    total = loss(network.classify(outputs)).sum()
    flat = [part for _, _, states in watched for state in states for part in state]
    reached = [part for part in flat if part.requires_grad]
    found = dict(zip(map(id, reached), torch.autograd.grad(total, reached, allow_unused=True), strict=True))
    rows = []
    for name, parts, states in watched:
        for step, whole in enumerate(states):
            for part, state in zip(parts, whole, strict=True):
                if not state.requires_grad:  # a part that only keeps the scale, as sLSTM's m
                    continue
                gradient = found.get(id(state))
                # A sweep has the lines of an image beside each other in its batch: they count together.
                norm = 0.0 if gradient is None else gradient.reshape(len(inputs), -1).norm(dim=1).mean().item()
                rows.append(GradientNorm(name, part, step, norm))
    return rows
