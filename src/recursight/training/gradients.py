"""How a loss reaches back in time: the norm of ∂loss/∂h[t] for each step t.

Where it falls towards the first steps gradients vanish, where it rises they explode (Bengio et al., 1994; Pascanu et
al., 2013, arXiv:1211.5063, sec. 2).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recursight.models.assembly import Classifier
from recursight.models.layers.recurrence import Bidirectional, Recurrence, State, reverse


@dataclass(frozen=True)
class GradientNorm:
    """One point of the curve; a row of gradient_norms.csv.

    Attributes:
        layer: which recurrent layer, such as `0.lstm` or `rows.1.gru.backward`.
        state: `h`, or `c` for a cell.
        step: in the order in which the layer reads, from 0.
        norm: Euclidean norm of the loss's gradient with respect to the state, mean over the images.
    """

    layer: str
    state: str
    step: int
    norm: float


def gradient_norms(model: Classifier, images: Tensor, labels: Tensor) -> list[GradientNorm]:
    """Runs the plain form of every layer, which shows each state, and asks for the loss's gradient there.

    Args:
        model: in any mode; it is left in eval mode, its gradients untouched.
        images: (B, H, W, C) on the model's device.
        labels: (B,).
    """
    model.eval()
    watched: list[tuple[str, Recurrence, list[State]]] = []

    def through(layer: Recurrence, name: str, inputs: Tensor) -> Tensor:
        states = layer.unroll(inputs)
        watched.append((name, layer, states))
        return layer.gather(states, inputs)

    outputs = []
    for view, (stack, inputs) in enumerate(zip(model.stacks, model.views(images), strict=True)):
        prefix = f"{model.scan.split('+')[view]}." if len(model.stacks) > 1 else ""
        for depth, layer in enumerate(getattr(stack, "layers", [])):
            if isinstance(layer, Bidirectional):
                name = f"{prefix}{depth}.{_family(layer.onward)}"
                onward = through(layer.onward, name, inputs)
                backward = reverse(through(layer.backward, f"{name}.backward", reverse(inputs)))
                inputs = torch.cat([onward, backward], dim=-1)
            else:
                inputs = through(layer, f"{prefix}{depth}.{_family(layer)}", inputs)
        outputs.append(inputs)
    if not watched:
        return []
    loss = F.cross_entropy(model.classify(outputs), labels, reduction="sum")
    flat = [part for _, _, states in watched for state in states for part in state]
    gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    rows = []
    for name, layer, states in watched:
        for step in range(len(states)):
            for part in layer.states:
                gradient = next(gradients)
                norm = 0.0 if gradient is None else gradient.flatten(1).norm(dim=1).mean().item()
                rows.append(GradientNorm(name, part, step, norm))
    return rows


def _family(layer: Recurrence) -> str:
    return type(layer).__name__.lower()
