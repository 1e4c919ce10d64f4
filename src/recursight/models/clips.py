"""Networks for clips: each frame is read into a vector, then the vectors are read over time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import Bidirectional, Layer, Stack, State
from recursight.models.packed import pad, starts, unpad
from recursight.models.readouts import Every, Middle


class ClipNetwork(nn.Module):
    """A network over the frames, a recurrent stack and readout over time, a linear head.

    Args:
        frame_network: (F, H, W, C), uint8 or floats from 0 to 1, to one vector each, (F, D).
        stack: over time.
        readout: one vector of each clip from the stack's outputs; `Every` keeps those of all frames, `Middle` reads
            one frame.
        head: outputs from a vector.
    """

    def __init__(self, *, frame_network: nn.Module, stack: Stack, readout: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.frame_network = frame_network
        self.stack = stack
        self.readout = readout
        self.head = head

    @property
    def every(self) -> bool:
        """Whether there is an output for every frame."""
        return isinstance(self.readout, Every)

    @property
    def causal(self) -> bool:
        """Whether an output depends on no later frame, so that a stream can be read in parts."""
        layers = [layer for layer in self.stack.layers if isinstance(layer, Layer)]
        return all(layer.causal for layer in layers) and self.every

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, outputs); or (F, outputs), one for each frame.

        Args:
            frames: of all clips one after another, (F, H, W, C).
            lengths: of the clips, (B,) int64.
        """
        if isinstance(self.readout, Middle):
            frames, lengths = frames[starts(lengths) + lengths // 2], torch.ones_like(lengths)
        vectors = self.frame_network(frames)  # F D
        states, _ = self.stack(pad(vectors, lengths), lengths=lengths)
        read = unpad(states, lengths, len(frames)) if self.every else self.readout(states, lengths)
        outputs: Tensor = self.head(read)
        return outputs

    def read(self, frames: Tensor, state: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """One clip or stream, or its next part: (outputs,), or (T, outputs); and the state to go on from.

        Args:
            frames: (T, H, W, C).
            state: after the part before.

        Raises:
            ValueError: if a state is given to a network that is not causal.
        """
        if state is not None and not self.causal:
            raise ValueError("this network reads a clip whole; it takes no state")
        if isinstance(self.readout, Middle):
            frames = frames[len(frames) // 2][None]
        states, after = self.stack(self.frame_network(frames)[None], state)
        read = states[0] if self.every else self.readout(states)[0]
        outputs: Tensor = self.head(read)
        return outputs, after


def readable_over_time(layer: Layer) -> bool:
    """Whether a layer reads sequences, and so can read clips of unlike length."""
    return not layer.grid and (layer.causal or isinstance(layer, Bidirectional))
