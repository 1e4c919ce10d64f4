"""How a loss depends on each state over time: the norm of ∂loss/∂h[t] for each step t.

Where it falls towards the first steps gradients vanish, where it rises they explode (Bengio et al., 1994; Pascanu et
al., 2013, arXiv:1211.5063, sec. 2).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recursight.models.assembly import Network
from recursight.models.layers.recurrence import Layer, Recurrence, State, family


@dataclass(frozen=True)
class GradientNorm:
    """One point of the curve; a row of gradient_norms.csv.

    Attributes:
        layer: which recurrent layer, such as `0.lstm` or `rows.1.gru.backward`.
        state: the part of its state, `h` or what else it carries from step to step.
        step: in the order in which the layer reads, from 0; of a grid, the row.
        norm: Euclidean norm of the loss's gradient with respect to the state, mean over the examples.
    """

    layer: str
    state: str
    step: int
    norm: float


def gradient_norms(network: Network, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> list[GradientNorm]:
    """Reads the inputs step by step, and takes the loss's gradient with respect to each state.

    Layers that read a grid from four corners have no steps, and so no rows here.

    Args:
        network: in any mode; it is left in eval mode, its gradients untouched.
        inputs: (B, H, W, C) on the network's device.
        loss: from the network's outputs (B, outputs) to one value an example.
    """
    network.eval()
    with _step_by_step(network) as recorded:
        outputs = [stack(view)[0] for stack, view in zip(network.stacks, network.views(inputs), strict=True)]
    found = [
        (name, part, step, state)
        for name, (parts, states) in recorded.items()
        for step, whole in enumerate(states)
        for part, state in zip(parts, whole, strict=False)  # what has no name is inputs that are still needed
        if state.requires_grad  # a part that only keeps the scale, as sLSTM's m, does not
    ]
    if not found:
        return []
    losses = loss(network.read_out(outputs))
    gradients = torch.autograd.grad(losses.sum(), [state for *_, state in found], allow_unused=True)
    rows = []
    for (name, part, step, _), gradient in zip(found, gradients, strict=True):
        # ReNet and the like have the lines of an image beside each other in a batch: they count together.
        norm = 0.0 if gradient is None else gradient.reshape(len(inputs), -1).norm(dim=1).mean().item()
        rows.append(GradientNorm(name, part, step, norm))
    return rows


Recorded = dict[str, tuple[tuple[str, ...], list[State]]]
"""By the name of a recurrence: the names of its state's parts, and its state after each step."""


@contextmanager
def _step_by_step(network: Network) -> Iterator[Recorded]:
    """Inside, each recurrence of the network reads one step at a time, and its states are recorded."""
    recorded: Recorded = {}

    def record(name: str) -> Callable[..., tuple[Tensor, State]]:
        def hook(layer: Recurrence, arguments: tuple[Any, ...], _: Any) -> tuple[Tensor, State]:
            inputs, *_ = arguments  # and no state: all are read from the start
            states: list[State] = []
            for x in inputs.split(1, dim=1):
                states.append(layer.forward(x, states[-1] if states else None)[1])
            recorded[name] = layer.states, states
            return torch.stack([state[0] for state in states], dim=1), states[-1]

        return hook

    hooks = [
        module.register_forward_hook(record(_name(network, path)))
        for path, module in network.named_modules()
        if isinstance(module, Recurrence) and module.causal
    ]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _name(network: Network, path: str) -> str:
    """Of the module `stacks.VIEW.layers.DEPTH...`: view if there are several, depth, layer, and what is inside it."""
    _, view, _, depth, *inside = path.split(".")
    layer = network.get_submodule(".".join(path.split(".")[:4]))
    assert isinstance(layer, Layer)
    views = [network.scan.views[int(view)]] if len(network.stacks) > 1 else []
    directions = {"forward_layer": [], "backward_layer": ["backward"]}
    parts = [part for name in inside for part in directions.get(name, [name])]
    return ".".join([*views, depth, family(layer), *parts])
