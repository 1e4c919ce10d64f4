"""A network as one file that runs natively where recursight is installed, and elsewhere with torch alone."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recursight.evaluation.predict import Program, latency
from recursight.models.bundle import load_bundle
from recursight.registry.program import LoadedProgram
from recursight.tasks import task_of

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
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    torch.export.save(exported, path)


def export_bundle(bundle: Path, path: Path, *, threads: int) -> dict[str, Any]:
    """Exports a trained network, and measures the file as it will be served.

    Args:
        bundle: folder of the training.
        path: of the file to write, ending in .pt2.
        threads: of torch while it is measured.

    Returns:
        latency_ms of one image, and latency_on: device and threads.
    """
    network, card = load_bundle(bundle)
    export(Program(network, task_of(card.task)).eval(), card.input_shape, path)
    return latency(LoadedProgram(path), np.zeros((1, *card.input_shape), np.uint8), threads=threads)
