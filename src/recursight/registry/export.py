"""A bundle as one file that runs natively where recursight is installed, and elsewhere with torch alone."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

EXAMPLES = 2  # an example batch of one image would fix the batch size


class Probabilities(nn.Module):
    """Class probabilities (B, classes) of raw uint8 images (B, H, W, C): normalisation and softmax are inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.network(images), dim=-1)


def export(network: nn.Module, input_shape: list[int], path: Path) -> None:
    """Writes a torch.export programme (pt2) that takes any number of images.

    Args:
        network: (B, H, W, C) uint8 images to (B, classes) logits, in eval mode on the CPU.
        input_shape: H, W, C.
        path: of the file, ending in .pt2.
    """
    examples = torch.zeros(EXAMPLES, *input_shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        # nn.LSTM and its kin keep a second list of their own parameters, which torch notices and copes with.
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        programme = torch.export.export(Probabilities(network), (examples,), dynamic_shapes=({0: batch},))
    programme.example_inputs = None  # they are all that torch would pickle
    torch.export.save(programme, path)
