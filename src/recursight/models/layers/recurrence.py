"""The contract of every recurrent layer, and the two ways to combine layers: both directions, and stacks."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from recursight.models.packed import reverse_each

State = tuple[Tensor, ...]


class Layer(nn.Module):
    """Reads a sequence (B, T, D), a grid (B, H, W, D) or maps over time (B, T, H, W, D) into `width` features for each
    step, and a state to go on from.

    A causal layer can read in parts: called on the next steps, or the next rows of a grid, with the state that it gave
    for those before, it gives what it would have given for all at once. A layer that is not causal reads its input
    whole.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.

    Attributes:
        grid: whether it reads grids instead of sequences.
        gives_grid: whether it gives a grid as it reads one; else a sequence.
        maps: whether it reads maps over time.
        name: in its table, if it is not the class's in lower case.
        causal: whether a state depends only on what lies before it in every axis.
    """

    grid: ClassVar[bool] = False
    gives_grid: ClassVar[bool] = False
    maps: ClassVar[bool] = False
    name: ClassVar[str] = ""
    causal: bool = True

    def __init__(self, features: int, hidden: int) -> None:
        if features < 1 or hidden < 1:
            raise ValueError(f"features and hidden must be at least 1; they are {features} and {hidden}")
        super().__init__()
        self.features = features
        self.hidden = hidden

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The outputs, and the state after the last step (or row); `state` is the one before the first.

        Raises:
            ValueError: if a state is given to a layer that is not causal.
        """
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Features of the outputs."""
        return self.hidden

    @property
    def parts(self) -> int:
        """Tensors of its state."""
        return 0

    def finals(self, sizes: Sequence[int]) -> list[int]:
        """Where everything has been read: for each equal share of the features, the index of a step in reading order,
        from the end where it is negative.

        Args:
            sizes: of the axes between batch and features.
        """
        return [-1]

    def last(self, inputs: Tensor) -> Tensor:
        """The outputs that have read everything, of each direction its own: (B, width).

        A layer that can give them without all others overrides this.
        """
        return last(self(inputs)[0].flatten(1, -2), self.finals(inputs.shape[1:-1]))

    def refuse(self, state: State | None) -> None:
        """Raises ValueError for a state: for layers that are not causal."""
        if state is not None:
            raise ValueError(f"{family(self)} reads its input whole, in more than one direction; it takes no state")


class Recurrence(Layer):
    """A causal layer whose state is its output, and what else it carries from step to step.

    A subclass has either `step`, the equation for one time step, or a `forward` of its own that is faster.

    Attributes:
        states: names of the parts of the state; the first is the output.
    """

    states: ClassVar[tuple[str, ...]] = ("h",)

    @property
    def parts(self) -> int:
        return len(self.states) if self.causal else 0

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if state is None:  # not len(inputs), which an export takes for a constant
            state = tuple(inputs.new_zeros(inputs.shape[0], self.hidden) for _ in self.states)
        outputs = []
        for x in inputs.unbind(dim=1):
            state = self.step(x, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def last(self, inputs: Tensor) -> Tensor:
        state: State = self(inputs)[1]
        return state[0]

    def step(self, x: Tensor, state: State) -> State:
        """One time step: x (B, D) and the state before it to the state after it, each part (B, H)."""
        raise NotImplementedError


class Bidirectional(Layer):
    """Reads in both directions (Schuster & Paliwal, 1997): outputs side by side, (B, T, 2·H), aligned in time.

    A grid is read from its first and from its last corner. It gives both layers' states, the forward layer's first, for
    a decoder to start from; it takes none, since the backward layer begins at the end.
    """

    causal = False

    def __init__(self, forward_layer: Layer, backward_layer: Layer) -> None:
        super().__init__(forward_layer.features, forward_layer.hidden)
        self.forward_layer = forward_layer
        self.backward_layer = backward_layer

    @property
    def width(self) -> int:
        return self.forward_layer.width + self.backward_layer.width

    @property
    def parts(self) -> int:
        return self.forward_layer.parts + self.backward_layer.parts

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As of every layer; `lengths`, (B,), are those of sequences that are padded at their end."""
        self.refuse(state)
        outputs, after = _read(self.forward_layer, inputs, None, lengths)
        reversed_outputs, before = _read(self.backward_layer, self._backwards(inputs, lengths), None, lengths)
        return torch.cat([outputs, self._backwards(reversed_outputs, lengths)], dim=-1), (*after, *before)

    def finals(self, sizes: Sequence[int]) -> list[int]:
        return [*self.forward_layer.finals(sizes), *(-1 - final for final in self.backward_layer.finals(sizes))]

    def last(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.forward_layer.last(inputs), self.backward_layer.last(reverse(inputs))], dim=-1)

    def _backwards(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is not None:
            return reverse_each(inputs, lengths)
        return inputs.flip(1) if self.forward_layer.maps else reverse(inputs)


def last(outputs: Tensor, finals: Sequence[int], lengths: Tensor | None = None) -> Tensor:
    """From outputs (B, T, H), of each equal share of H that of its own step: (B, H).

    Args:
        outputs: over time.
        finals: for each share, the index of its step; below 0 from the end.
        lengths: of the sequences, (B,), where they are padded at their end.
    """
    shares = outputs.chunk(len(finals), dim=-1)
    if lengths is None:
        return torch.cat([share[:, final] for share, final in zip(shares, finals, strict=True)], dim=-1)
    rows = torch.arange(len(outputs), device=outputs.device)
    steps = [(final + lengths * (final < 0)).to(outputs.device) for final in finals]
    return torch.cat([share[rows, step] for share, step in zip(shares, steps, strict=True)], dim=-1)


def reverse(inputs: Tensor) -> Tensor:
    """Flips every axis between batch and features."""
    return inputs.flip(list(range(1, inputs.dim() - 1)))


class Stack(nn.Module):
    """Layers one above the other, with dropout between them (Zaremba et al., 2014, arXiv:1409.2329).

    Its state is that of each layer, the lowest first, as one tuple.
    """

    def __init__(self, layers: Sequence[Layer], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.parts = sum(layer.parts for layer in layers)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The outputs of the uppermost layer, and the state after the last step.

        Args:
            inputs: as of every layer.
            state: before the first step; None or empty: none.
            lengths: of sequences that are padded at their end, (B,); the state is then after the padding.
        """
        left: State = state or ()
        after: State = ()
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            before, left = left[: layer.parts], left[layer.parts :]
            inputs, reached = _read(layer, self.dropout(inputs) if depth else inputs, before or None, lengths)
            after = (*after, *reached)
        return inputs, after

    def last(self, inputs: Tensor) -> Tensor:
        """The outputs of the uppermost layer that have read everything: (B, width)."""
        if not self.layers:
            return last(inputs.flatten(1, -2), [-1])
        *below, top = self.layers
        for layer in below:
            inputs = self.dropout(layer(inputs)[0])
        assert isinstance(top, Layer)
        return top.last(inputs)


def _read(layer: Layer, inputs: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
    """Lengths are given only to layers that have a use for them."""
    if lengths is not None and (layer.maps or isinstance(layer, Bidirectional)):
        outputs, after = layer(inputs, state, lengths)
    else:
        outputs, after = layer(inputs, state)
    return outputs, after


def family(layer: Layer) -> str:
    """The layer's name in its table."""
    kind = type(layer.forward_layer if isinstance(layer, Bidirectional) else layer)
    return kind.name or kind.__name__.lower()


def glorot(weight: Tensor, gates: int) -> None:
    """Fills the blocks of rows that belong to the gates, each by itself (Glorot & Bengio, 2010, eq. 16)."""
    for block in weight.data.chunk(gates):
        nn.init.xavier_uniform_(block)


def orthogonal(weight: Tensor, gates: int) -> None:
    """Fills the same blocks with orthogonal matrices (Saxe et al., 2014, arXiv:1312.6120)."""
    for block in weight.data.chunk(gates):
        nn.init.orthogonal_(block)
