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
from recursight.models.clips import ClipNetwork
from recursight.models.layers.recurrence import Layer, Recurrence, Stack, State, family
from recursight.tasks import Batch
from recursight.training.step import Loss


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


def gradient_norms(network: Network | ClipNetwork, batch: Batch, loss: Loss) -> list[GradientNorm]:
    """Reads a batch step by step, and takes the loss's gradient with respect to each state.

    Of a network for clips these are the states over time; a step's mean is that of the clips that are not over. Layers
    that read a grid from four corners have no steps, and so no rows here.

    Args:
        network: in any mode; it is left in eval mode, its gradients untouched.
        batch: on the network's device.
        loss: from the network's outputs and the batch to one value an example.
    """
    network.eval()
    with _step_by_step(network) as recorded:
        outputs = _outputs(network, batch)
    found = [
        (name, part, step, state)
        for name, (parts, states) in recorded.items()
        for step, whole in enumerate(states)
        for part, state in zip(parts, whole, strict=False)  # what has no name is inputs that are still needed
        if state.requires_grad  # a part that only keeps the scale, as sLSTM's m, does not
    ]
    if not found:
        return []
    losses = loss(outputs, batch)
    gradients = torch.autograd.grad(losses.sum(), [state for *_, state in found], allow_unused=True)
    examples = len(batch.inputs) if batch.lengths is None else len(batch.lengths)
    rows = []
    for (name, part, step, _), gradient in zip(found, gradients, strict=True):
        reading = slice(None) if batch.lengths is None else batch.lengths > step
        # ReNet and the like have the lines of an image beside each other in a batch: they count together.
        norm = 0.0 if gradient is None else gradient.reshape(examples, -1).norm(dim=1)[reading].mean().item()
        rows.append(GradientNorm(name, part, step, norm))
    return rows


def _outputs(network: Network | ClipNetwork, batch: Batch) -> Tensor:
    if isinstance(network, Network):
        views = zip(network.stacks, network.views(batch.inputs), strict=True)
        return network.read_out([stack(view)[0] for stack, view in views])
    assert batch.lengths is not None
    with torch.no_grad():
        vectors = network.each_frame(batch.inputs)
    return network.over_time(vectors, batch.lengths)[0]


Recorded = dict[str, tuple[tuple[str, ...], list[State]]]
"""By the name of a recurrence: the names of its state's parts, and its state after each step."""


@contextmanager
def _step_by_step(network: Network | ClipNetwork) -> Iterator[Recorded]:
    """Inside, each recurrence reads one step at a time, and its states are recorded."""
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

    hooks = [layer.register_forward_hook(record(name)) for name, layer in _recurrences(network)]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _recurrences(network: Network | ClipNetwork) -> Iterator[tuple[str, Recurrence]]:
    """Causal ones, by view if there are several, depth, layer, and what is inside it."""
    if isinstance(network, ClipNetwork):
        stacks: list[Stack] = [network.stack]
        views: list[list[str]] = [[]]
    else:
        stacks = [stack for stack in network.stacks if isinstance(stack, Stack)]
        views = [[view] for view in network.scan.views] or [[]]
    directions: dict[str, list[str]] = {"": [], "forward_layer": [], "backward_layer": ["backward"]}
    for view, stack in zip(views, stacks, strict=True):
        for depth, layer in enumerate(stack.layers):
            assert isinstance(layer, Layer)
            for path, module in layer.named_modules():
                if isinstance(module, Recurrence) and module.causal:
                    inside = [part for name in path.split(".") for part in directions.get(name, [name])]
                    yield ".".join([*view, str(depth), family(layer), *inside]), module
