"""A network as an exported program, and how it answers. MLflow copies this file into registered models: nothing of
recursight is imported."""

import zipfile
from pathlib import Path

import numpy as np
import torch

BATCH = 1024  # images at once, so that a large request needs no more memory than a middling one


class LoadedProgram:
    """A torch.export program in memory: raw images to answers.

    Args:
        path: of the .pt2 file.

    Raises:
        ValueError: if it holds a pickle; torch would run the code in it.
    """

    def __init__(self, path: Path) -> None:
        _refuse_pickles(path)
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


def _refuse_pickles(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            folder, _, name = entry.filename.partition("/data/")[2].partition("/")
            sample = folder == "sample_inputs" and entry.file_size > 0
            foreign = folder == "constants" and not name.startswith(("tensor_", "model_constants_config"))
            flagged = name.endswith("_config.json") and b'"use_pickle": true' in archive.read(entry)
            if sample or foreign or flagged:
                raise ValueError(f"{path.name}: {entry.filename} is pickled; such a model is not loaded.")
