"""Networks for clips: each frame is read into a vector or a map, then these are read over time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from recursight.models.layers.recurrence import Layer, Stack, State
from recursight.models.packed import Part, pad, parts, starts, unpad
from recursight.models.readouts import Every, Middle, Readout

FRAMES_AT_ONCE = 256
"""Outside training, so many frames at most are read together: an hour of them does not fit into memory."""


class ClipNetwork(nn.Module):
    """A network over the frames, a recurrent stack and readout over time, a linear head.

    Args:
        frame_network: (F, H, W, C), uint8 or floats from 0 to 1, to one vector each, (F, D), or one map each,
            (F, H', W', D).
        shape: of what it gives for one frame, (D,) or (H', W', D).
        stack: over time.
        readout: one vector of each clip from the stack's outputs; `Every` keeps those of all frames, `Middle` reads
            one frame. It reads the mean of a map over space.
        head: outputs from a vector.
    """

    def __init__(
        self, *, frame_network: nn.Module, shape: Sequence[int], stack: Stack, readout: Readout, head: nn.Module
    ) -> None:
        super().__init__()
        self.frame_network = frame_network
        self.shape = tuple(shape)
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
        return all(layer.causal for layer in layers) and self.readout.causal

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, outputs); or (F, outputs), one for each frame.

        Args:
            frames: of all clips one after another, (F, H, W, C).
            lengths: of the clips, (B,) int64.
        """
        lengths = lengths.cpu()
        if isinstance(self.readout, Middle):
            frames, lengths = frames[starts(lengths) + lengths // 2], torch.ones_like(lengths)
        if self.causal and not self.training and len(frames) > FRAMES_AT_ONCE:
            return self._in_parts(frames, lengths)
        return self.resume(frames, lengths)[0]

    def resume(self, frames: Tensor, lengths: Tensor, state: State = ()) -> tuple[Tensor, State]:
        """Reads the next frames of each clip: outputs as of `forward`, and the state to go on from.

        Args:
            frames: (F, H, W, C), at least one of each clip.
            lengths: of these, on the CPU.
            state: after the frames before; empty at the start. Each part of it is (B, ...).
        """
        return self.over_time(self.each_frame(frames), lengths, state)

    def over_time(self, vectors: Tensor, lengths: Tensor, state: State = ()) -> tuple[Tensor, State]:
        """`resume`, from what the frame network gives for each frame."""
        outputs, after = self._over_time(pad(vectors, lengths), lengths, state)
        return unpad(outputs, lengths) if self.every else outputs, after

    def read(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One clip or stream, or its next part: (outputs,) for all frames so far, or (T, outputs); and the state to go
        on from, which is empty unless the network is causal.

        Args:
            frames: (T, H, W, C).
            state: after the part before; None at the start. Each part of it is (1, ...).

        Raises:
            ValueError: if a state is given to a network that is not causal.
        """
        if state and not self.causal:
            raise ValueError("this network reads a clip whole; it takes no state")
        if isinstance(self.readout, Middle):
            frames = frames[len(frames) // 2][None]
        outputs, after = self._over_time(self.each_frame(frames)[None], None, state or ())
        return outputs[0], after if self.causal else ()

    def initial_state(self) -> State:
        """The state before the first frame: zeros. To start from it is to start from none."""
        if not self.causal:
            return ()
        weights = next(self.parameters())
        with torch.no_grad():
            blank = weights.new_zeros(1, 1, *self.shape)
            return tuple(torch.zeros_like(part) for part in self._over_time(blank, None, ())[1])

    def in_parts(self, frames: Tensor, lengths: Tensor, size: int) -> Iterator[tuple[Part, Tensor]]:
        """Reads the clips in parts of at most so many frames each, with the state carried, detached: the parts and
        their outputs."""
        state: State = ()
        for part in parts(lengths, size):
            before = tuple(one.detach()[part.kept] for one in state)
            outputs, state = self.resume(frames[part.frames], part.lengths, before)
            yield part, outputs

    def rows(self, part: Part) -> Tensor:
        """Which rows of the whole outputs a part's are."""
        return part.frames if self.every else part.examples

    def _in_parts(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`forward` in memory that does not grow with the clips' length."""
        found: Tensor | None = None
        for part, outputs in self.in_parts(frames, lengths, max(1, FRAMES_AT_ONCE // len(lengths))):
            if found is None:
                found = outputs.new_empty(len(frames) if self.every else len(lengths), outputs.shape[-1])
            found[self.rows(part)] = outputs  # of several answers to one clip the last remains
        assert found is not None
        return found

    def each_frame(self, frames: Tensor) -> Tensor:
        """What the frame network gives for each frame."""
        if self.training or torch.compiler.is_compiling() or len(frames) <= FRAMES_AT_ONCE:
            found: Tensor = self.frame_network(frames)
            return found
        return torch.cat([self.frame_network(some) for some in frames.split(FRAMES_AT_ONCE)])

    def _over_time(self, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """From vectors or maps (B, T, ...) to outputs (B, outputs), or (B, T, outputs), and the state after them."""
        states, after = self.stack(inputs, state[: self.stack.parts], lengths)
        if states.dim() > 3:
            states = states.mean(dim=(2, 3))
        read, carried = self.readout.resume(states, lengths, state[self.stack.parts :])
        outputs: Tensor = self.head(read)
        return outputs, (*after, *carried)
