"""A bundle as a file that runs without recursight."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from recursight.tasks import Task

EXAMPLES = 2  # an example batch of one image would fix the batch size


class Answering(nn.Module):
    """The task's answers (B, ...) to raw uint8 images (B, H, W, C): normalisation and, say, softmax are inside."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self.task = task

    def forward(self, images: Tensor) -> Tensor:
        return self.task.answers(self.network(images))


def export(network: nn.Module, task: Task, input_shape: list[int], path: Path) -> None:
    """Writes a torch.export program (pt2) that takes any number of images.

    Args:
        network: (B, H, W, C) uint8 images to outputs (B, ...), in eval mode on the CPU.
        task: makes answers of the outputs.
        input_shape: H, W, C.
        path: of the file, ending in .pt2.
    """
    examples = torch.zeros(EXAMPLES, *input_shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        # nn.LSTM and its kin keep a second list of their own parameters, which torch notices and copes with.
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        program = torch.export.export(Answering(network, task), (examples,), dynamic_shapes=({0: batch},))
    program.example_inputs = None  # they are all that torch would pickle
    torch.export.save(program, path)
