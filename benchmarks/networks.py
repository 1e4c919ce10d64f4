"""The contenders' networks in plain torch, with weights taken from ours."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import CLASSES, SIDE, Case
from recursight.models.assembly import Network, assemble
from recursight.models.kernels.plain import GRID_CELLS
from recursight.params import Candidate


def ours(case: Case) -> Network:
    """As `recursight train` builds it."""
    torch.manual_seed(0)
    layer = {case.layer: case.options} if case.options else case.layer
    architecture = Candidate(scan=case.scan, layer=layer, hidden=list(case.hidden)).architecture
    return assemble(architecture, input_shape=[SIDE, SIDE, 1], outputs=CLASSES, mean=[0.0], std=[1.0])


class PlainTorch(nn.Module):
    """torch.nn's layers, one above the other; where it has no such layer, its GRU of the same width."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
        source = ours(case)
        self.pixels = case.scan == "pixels"
        width = 1 if self.pixels else SIDE
        self.layers = nn.ModuleList()
        for depth, hidden in enumerate(case.hidden):
            layer = kinds.get(case.layer, nn.GRU)(width, hidden, batch_first=True)
            if case.layer in kinds:
                state = source.stacks[0].layers[depth].rnn.state_dict()
                layer.load_state_dict(state)
            self.layers.append(layer)
            width = hidden
        self.head = nn.Linear(width, CLASSES)
        self.head.load_state_dict(source.head[1].state_dict())

    def forward(self, images: Tensor) -> Tensor:
        steps = images.flatten(1, 2) if self.pixels else images.flatten(2)
        for layer in self.layers:
            steps, _ = layer(steps)
        logits: Tensor = self.head(steps[:, -1])
        return logits


class DoubleLoop(nn.Module):
    """A recurrence over a grid as it is written down: for each row, for each column."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        source = ours(case)
        self.layer, self.head = source.stacks[0].layers[0], source.head[1]
        self.cell = GRID_CELLS[case.layer]

    def forward(self, images: Tensor) -> Tensor:
        layer = self.layer
        corners = [(), (2,), (1,), (1, 2)][: layer.directions]
        inputs = layer.input.weight.chunk(layer.directions), layer.input.bias.chunk(layer.directions)
        last = [
            self.read(images.flip(corner), weight, bias, recurrent)
            for corner, weight, bias, recurrent in zip(corners, *inputs, layer.recurrent, strict=True)
        ]
        logits: Tensor = self.head(torch.cat(last, dim=-1))
        return logits

    def read(self, images: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor) -> Tensor:
        """The last pixel's state."""
        batch, height, width, _ = images.shape
        zero = tuple(images.new_zeros(batch, self.layer.hidden) for _ in self.layer.states)
        above = [zero] * width
        for i in range(height):
            left = zero
            for j in range(width):
                neighbours = torch.cat([left[0], above[j][0]], dim=-1)
                products = nn.functional.linear(images[:, i, j], weight, bias) + neighbours @ recurrent.T
                left = above[j] = self.cell(products, left, above[j])
        return left[0]
