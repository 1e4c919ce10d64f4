"""What every recurrent layer honours, and the two ways to combine layers: both directions, and stacks."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Recurrence(nn.Module):
    """One recurrent layer in one direction.

    A subclass has two forms of the same equations: `step`, plain and readable, and `forward`, fast. Tests compare
    them; the gradient probe needs the plain one, since it looks at every state.

    Args:
        features: size D of one step's input.
        hidden: size H of the state.

    Attributes:
        states: names of the parts of the state; the first is the output.
        grid: whether it reads (B, H, W, D) grids instead of (B, T, D) sequences.
    """

    states: ClassVar[tuple[str, ...]] = ("h",)
    grid: ClassVar[bool] = False

    def __init__(self, features: int, hidden: int) -> None:
        if features < 1 or hidden < 1:
            raise ValueError(f"features and hidden must be at least 1; they are {features} and {hidden}")
        super().__init__()
        self.features = features
        self.hidden = hidden

    def step(self, x: Tensor, state: State) -> State:
        """One time step: x (B, D) and the state before it to the state after it, each part (B, H)."""
        raise NotImplementedError

    def initial_state(self, x: Tensor) -> State:
        """Zeros (B, H) for each part of the state."""
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in self.states)

    def unroll(self, inputs: Tensor) -> list[State]:
        """The state after each step, by the plain form."""
        state = self.initial_state(inputs)
        states = []
        for x in inputs.unbind(dim=1):
            state = self.step(x, state)
            states.append(state)
        return states

    def gather(self, states: list[State], inputs: Tensor) -> Tensor:
        """What `forward` gives, from what `unroll` gave."""
        return torch.stack([state[0] for state in states], dim=1)


class Bidirectional(nn.Module):
    """Reads in both directions (Schuster & Paliwal, 1997): states side by side, (B, T, 2·H), aligned in time.

    A grid is read from its first and from its last corner.
    """

    def __init__(self, onward: Recurrence, backward: Recurrence) -> None:
        super().__init__()
        self.onward = onward
        self.backward = backward

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.onward(inputs), reverse(self.backward(reverse(inputs)))], dim=-1)


def reverse(inputs: Tensor) -> Tensor:
    """Flips every axis between batch and features."""
    return inputs.flip(list(range(1, inputs.dim() - 1)))


class Stack(nn.Module):
    """Layers one above the other, with dropout between them (Zaremba et al., 2014, arXiv:1409.2329)."""

    def __init__(self, layers: Sequence[Recurrence | Bidirectional], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        for depth, layer in enumerate(self.layers):
            inputs = layer(self.dropout(inputs) if depth else inputs)
        return inputs
