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
        self.module = torch.export.load(path).module()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Float64 answers (N, ...) for uint8 images (N, H, W, C); N may be 0."""
        if not len(images):
            return self(np.zeros((1, *images.shape[1:]), np.uint8))[:0]
        images = np.require(images, np.uint8, ("C", "W"))  # torch cannot take a read-only array
        with torch.inference_mode():
            parts = [
                self.module(torch.from_numpy(images[start : start + BATCH])).double().numpy()
                for start in range(0, len(images), BATCH)
            ]
        return np.concatenate(parts)

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(parameter.numel() for parameter in self.module.parameters())


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
