"""A network as one file that runs natively where recursight is installed, and elsewhere with torch alone."""

import warnings
from pathlib import Path

import torch
from torch import nn

EXAMPLES = 2  # an example batch of one image would fix the batch size


def export(program: nn.Module, input_shape: list[int], path: Path) -> None:
    """Writes a torch.export program (pt2) that takes any number of images.

    Args:
        program: (B, H, W, C) uint8 images to the task's answers (B, ...), in eval mode on the CPU.
        input_shape: H, W, C.
        path: of the file, ending in .pt2.
    """
    examples = torch.zeros(EXAMPLES, *input_shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        # nn.LSTM and its kin keep a second list of their own parameters, which torch notices and copes with.
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        exported = torch.export.export(program, (examples,), dynamic_shapes=({0: batch},))
    exported.example_inputs = None  # they are all that torch would pickle
    torch.export.save(exported, path)
