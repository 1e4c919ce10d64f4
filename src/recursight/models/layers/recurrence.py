"""What every recurrent layer honours, and the two ways to combine layers: both directions, and stacks."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
Watch = Callable[[str, tuple[str, ...], list[State]], None]
"""Is told the name of a recurrence inside a layer, the names of its state's parts, and its state after each step."""


class Layer(nn.Module):
    """Reads a sequence (B, T, D) or a grid (B, H, W, D), and gives a state of `width` features for each step.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.

    Attributes:
        grid: whether it reads grids instead of sequences.
        gives_grid: whether it gives a grid as it reads one; else a sequence.
        causal: whether a state depends only on what lies before it in every axis.
    """

    grid: ClassVar[bool] = False
    gives_grid: ClassVar[bool] = False
    causal: bool = True

    def __init__(self, features: int, hidden: int) -> None:
        if features < 1 or hidden < 1:
            raise ValueError(f"features and hidden must be at least 1; they are {features} and {hidden}")
        super().__init__()
        self.features = features
        self.hidden = hidden

    @property
    def width(self) -> int:
        """Features of what it gives."""
        return self.hidden

    def finals(self, sizes: Sequence[int]) -> list[int]:
        """Where everything has been read: for each equal share of the features, the index of a step in reading order,
        from the end where it is negative.

        Args:
            sizes: of the axes between batch and features.
        """
        return [-1]

    def last(self, inputs: Tensor) -> Tensor:
        """The states that have read everything, of each direction its own: (B, width).

        A layer that can give them without all others has a form of its own.
        """
        return last(self(inputs).flatten(1, -2), self.finals(inputs.shape[1:-1]))

    def observe(self, inputs: Tensor, watch: Watch) -> Tensor:
        """What `forward` gives, by the plain form of each recurrence inside, which `watch` is told of."""
        raise NotImplementedError


class Recurrence(Layer):
    """One recurrent layer in one direction.

    A subclass has two forms of the same equations: `step`, plain and readable, and `forward`, fast. Tests compare
    them; the gradient probe needs the plain one, since it looks at every state.

    Attributes:
        states: names of the parts of the state; the first is the output.
    """

    states: ClassVar[tuple[str, ...]] = ("h",)

    def step(self, x: Tensor, state: State) -> State:
        """One time step: x (B, D) and the state before it to the state after it, each part (B, H)."""
        raise NotImplementedError

    def initial_state(self, x: Tensor) -> State:
        """Zeros (B, H) for each part of the state."""
        # Not len(x), which an export takes for a constant.
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in self.states)

    def prepare(self, inputs: Tensor) -> Tensor:
        """What `step` is given: (B, T, D), the inputs themselves unless a step looks further back."""
        return inputs

    def unroll(self, inputs: Tensor) -> list[State]:
        """The state after each step, by the plain form."""
        state = self.initial_state(inputs)
        states = []
        for x in self.prepare(inputs).unbind(dim=1):
            state = self.step(x, state)
            states.append(state)
        return states

    def gather(self, states: list[State], inputs: Tensor) -> Tensor:
        """What `forward` gives, from what `unroll` gave."""
        return torch.stack([state[0] for state in states], dim=1)

    def observe(self, inputs: Tensor, watch: Watch) -> Tensor:
        states = self.unroll(inputs)
        watch("", self.states, states)
        return self.gather(states, inputs)


class Bidirectional(Layer):
    """Reads in both directions (Schuster & Paliwal, 1997): states side by side, (B, T, 2·H), aligned in time.

    A grid is read from its first and from its last corner.
    """

    causal = False

    def __init__(self, onward: Layer, backward: Layer) -> None:
        super().__init__(onward.features, onward.hidden)
        self.onward = onward
        self.backward = backward

    @property
    def width(self) -> int:
        return self.onward.width + self.backward.width

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.onward(inputs), reverse(self.backward(reverse(inputs)))], dim=-1)

    def finals(self, sizes: Sequence[int]) -> list[int]:
        return [*self.onward.finals(sizes), *(-1 - final for final in self.backward.finals(sizes))]

    def last(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.onward.last(inputs), self.backward.last(reverse(inputs))], dim=-1)

    def observe(self, inputs: Tensor, watch: Watch) -> Tensor:
        onward = self.onward.observe(inputs, watch)
        backward = self.backward.observe(reverse(inputs), within("backward", watch))
        return torch.cat([onward, reverse(backward)], dim=-1)


def last(states: Tensor, finals: Sequence[int]) -> Tensor:
    """From states (B, T, H), of each equal share of H that of its own step: (B, H)."""
    shares = states.chunk(len(finals), dim=-1)
    return torch.cat([share[:, final] for share, final in zip(shares, finals, strict=True)], dim=-1)


def reverse(inputs: Tensor) -> Tensor:
    """Flips every axis between batch and features."""
    return inputs.flip(list(range(1, inputs.dim() - 1)))


def within(name: str, watch: Watch) -> Watch:
    """Puts a name before the names that `watch` is told."""
    return lambda inner, parts, states: watch(f"{name}.{inner}".rstrip("."), parts, states)


class Stack(nn.Module):
    """Layers one above the other, with dropout between them (Zaremba et al., 2014, arXiv:1409.2329)."""

    def __init__(self, layers: Sequence[Layer], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        for depth, layer in enumerate(self.layers):
            inputs = layer(self.dropout(inputs) if depth else inputs)
        return inputs

    def last(self, inputs: Tensor) -> Tensor:
        """The states of the uppermost layer that have read everything: (B, width)."""
        *below, top = map(_layer, self.layers)
        for layer in below:
            inputs = self.dropout(layer(inputs))
        return top.last(inputs)

    def observe(self, inputs: Tensor, watch: Watch) -> Tensor:
        """As a layer's; a recurrence's name opens with its depth and family, such as `0.lstm`."""
        for depth, layer in enumerate(map(_layer, self.layers)):
            inputs = layer.observe(self.dropout(inputs) if depth else inputs, within(f"{depth}.{family(layer)}", watch))
        return inputs


def _layer(module: nn.Module) -> Layer:
    if not isinstance(module, Layer):
        raise TypeError(f"a stack holds layers; this is a {type(module).__name__}")
    return module


def family(layer: Layer) -> str:
    """The layer's name in `LAYERS`."""
    return type(layer.onward if isinstance(layer, Bidirectional) else layer).__name__.lower()


def widened(products: Tensor) -> Tensor:
    """In float32 at least: over many steps a recurrence adds up what bfloat16, as products are on CUDA, rounds away."""
    return products.to(torch.promote_types(products.dtype, torch.float32))


def glorot(weight: Tensor, gates: int) -> None:
    """Fills the blocks of rows that belong to the gates, each by itself (Glorot & Bengio, 2010, eq. 16)."""
    for block in weight.data.chunk(gates):
        nn.init.xavier_uniform_(block)


def orthogonal(weight: Tensor, gates: int) -> None:
    """Likewise with orthogonal matrices (Saxe et al., 2014, arXiv:1312.6120)."""
    for block in weight.data.chunk(gates):
        nn.init.orthogonal_(block)
