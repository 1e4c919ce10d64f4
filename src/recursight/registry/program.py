"""Loads and runs an exported network. Registered models contain a copy of this file for MLflow's own server, which has
no recursight: it imports nothing of it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

BATCH = 1024  # images at a time, which bounds the memory of a large request


class LoadedProgram:
    """A torch.export program in memory, from raw images to answers.

    Args:
        path: of the .pt2 file.
        operators: Python file that defines the recurrent operators in plain torch, used if recursight is not installed.

    torch runs code from a file that asks for it: only load one that `registry.archive` has checked, or that is trusted.
    """

    def __init__(self, path: Path, operators: Path | None = None) -> None:
        define_operators(operators)
        exported = torch.export.load(path)
        # The graph is run as it is: what `exported.module()` wraps around it checks each input again, in about the
        # time that a small network needs for an image. Its inputs are the weights, then the images.
        self.graph = exported.graph_module
        *weights, images = exported.graph_signature.input_specs
        self.tensors = dict(exported.state_dict)  # trained values by their names in the network
        held = self.tensors | exported.constants
        self.weights = [held[str(weight.target)] for weight in weights]
        (inputs,) = (node for node in self.graph.graph.nodes if node.name == images.arg.name)
        self.shape = tuple(inputs.meta["val"].shape[1:])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Float64 answers (N, ...) for uint8 images (N, H, W, C); N may be 0.

        Raises:
            ValueError: if the images have another shape than the network takes.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(f"images of shape {images.shape[1:]}, but the network takes {self.shape}")
        if not len(images):
            return self(np.zeros((1, *self.shape), np.uint8))[:0]
        images = np.require(images, np.uint8, ("C", "W"))  # torch cannot take a read-only array
        with torch.inference_mode():
            parts = [
                self.graph(*self.weights, torch.from_numpy(images[start : start + BATCH]))[0].double().numpy()
                for start in range(0, len(images), BATCH)
            ]
        return np.concatenate(parts)

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(value.numel() for value in self.tensors.values() if isinstance(value, torch.nn.Parameter))


PLAIN = "recursight_operators"


def define_operators(plain: Path | None) -> None:
    """Registers the recurrent operators with torch: the native kernels, or those of the file in plain torch."""
    try:
        from recursight.models.kernels import build, operators  # noqa: F401
    except ImportError:
        if plain is not None and PLAIN not in sys.modules:
            specification = importlib.util.spec_from_file_location(PLAIN, plain)
            module = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
            specification.loader.exec_module(module)  # type: ignore[union-attr]
            module.library = module.define()  # type: ignore[attr-defined]  # keeps the operators registered
            sys.modules[PLAIN] = module
    else:
        build.library()  # compiles now, so that the first request need not
