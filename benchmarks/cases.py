"""What is measured: the same network, data and optimizer for every contender."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BATCH, CLASSES, SIDE, LEARNING_RATE = 128, 10, 28, 0.001
SECONDS = 1.5  # a round lasts at least


@dataclass(frozen=True)
class Case:
    """A network, and who is to train it.

    Attributes:
        layer: ours; the rows of `recursight.models.layers.LAYERS`.
        scan: how a 28×28 image is read.
        hidden: widths, first to last.
        images: in an epoch; a round has as many epochs as it takes to last.
        contenders: names that `contend.py` and `contend_keras.py` know; ours first.
        inference: images in one prediction; 0 for training.
        options: of our layer.
    """

    layer: str
    scan: str
    hidden: tuple[int, ...]
    images: int
    contenders: tuple[str, ...]
    inference: int = 0
    options: dict[str, Any] = field(default_factory=dict)


ROWS = ("rows", (128, 64), 2560)
CASES = {
    "lstm": Case("lstm", *ROWS, ("ours", "torch", "keras")),
    "gru": Case("gru", *ROWS, ("ours", "torch", "keras")),
    "elman": Case("elman", *ROWS, ("ours", "torch", "keras")),
    "rnn2d": Case("rnn2d", "grid", (32,), 512, ("ours", "double-loop")),
    "mdlstm": Case("mdlstm", "grid", (32,), 256, ("ours", "double-loop")),
    "mdlstm-4": Case("mdlstm", "grid", (32,), 256, ("ours", "double-loop"), options={"directions": 4}),
    "mingru-pixels": Case("mingru", "pixels", (128,), 256, ("ours", "torch")),
    "lru-pixels": Case("lru", "pixels", (128,), 256, ("ours", "torch")),
    "predict-1": Case("lstm", *ROWS[:2], 200, ("ours", "torch", "keras", "keras-function"), inference=1),
    "predict-1000": Case("lstm", *ROWS[:2], 3000, ("ours", "torch", "keras", "keras-function"), inference=1000),
}


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28, 1) of noise as bytes, and labels; fewer are the first of more."""
    images = np.random.RandomState(0).randint(0, 256, (count, SIDE, SIDE, 1)).astype(np.uint8)
    return images, np.random.RandomState(1).randint(0, CLASSES, count).astype(np.int64)
