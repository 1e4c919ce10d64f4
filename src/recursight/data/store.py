"""The store: the one form in which images reach training and evaluation.

A folder of four files: `images.npy` (uint8, axes N T H W C; stills have T = 1), `manifest.parquet` (one row per image,
in the same order: id, label, split, group, sha256), `statistics.parquet` (likewise, figures of the image: what drift is
told by) and `store.json` (classes, shape, counts, normalisation, digest).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recursight.errors import InputError
from recursight.files import read_json

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Store:
    """An opened store.

    Attributes:
        images: uint8, N T H W C, memory-mapped and read-only.
        manifest: columns id (str), label (int, index into `classes`), split (one of `SPLITS`, or `left-out` for a
            training image that a test or validation image equals), group (str, empty for none), sha256 (hex, of the
            stored pixels).
        classes: names of the classes, in the order of their labels.
        mean: per channel, of the training split, on the scale 0 to 1.
        std: likewise; never zero.
        digest: SHA-256 over everything above that decides a training.
        summary: the content of store.json.
    """

    images: np.ndarray
    manifest: pd.DataFrame
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    summary: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T, H, W, C of one example."""
        _, t, h, w, c = self.images.shape
        return t, h, w, c

    def indices(self, split: str) -> np.ndarray:
        """Rows of one split, int64, in the order of the store."""
        return np.flatnonzero((self.manifest["split"] == split).to_numpy())

    def labels(self, split: str) -> np.ndarray:
        """Labels of one split, int64."""
        labels: np.ndarray = self.manifest["label"].to_numpy(dtype=np.int64)[self.indices(split)]
        return labels


def open_store(folder: Path) -> Store:
    """Opens a store without reading its images.

    Raises:
        InputError: if there is none, or its files do not belong together.
    """
    try:
        summary = read_json(folder / "store.json")
        manifest = pd.read_parquet(folder / "manifest.parquet")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing: make the store with `dvc repro prepare`.") from None
    if len(manifest) != len(images):
        raise InputError(
            f"{folder}: {len(images)} images but {len(manifest)} manifest rows; run `dvc repro -f prepare`."
        )
    return Store(
        images=images,
        manifest=manifest,
        classes=tuple(summary["classes"]),
        mean=tuple(summary["mean"]),
        std=tuple(summary["std"]),
        digest=summary["digest"],
        summary=summary,
    )
