"""Small trainings on the digits, quick enough to be repeated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from recursight.models.assembly import Network, assemble
from recursight.params import Candidate
from recursight.tasks.classification import Classification
from recursight.training.batches import Batches
from recursight.training.loop import Epoch, fit
from recursight.training.optimizers import build_optimizer

IMAGES, CLASSES = 256, 4
TASK = Classification()


@pytest.fixture(scope="session")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8, 1) of a bright quadrant under noise, and which quadrant it is."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, IMAGES)
    images = draw.integers(0, 100, (IMAGES, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[top : top + 4, left : left + 4] += 100
    return images, labels


@dataclass
class Trainable:
    """A model with all that `fit` wants."""

    model: Network
    optimizer: torch.optim.Optimizer
    train: Batches
    validation: Batches

    def fit(self, epochs: range, **changes: Any) -> Iterator[Epoch]:
        settings: dict[str, Any] = {
            "learning_rate": lambda step: 0.01,
            "augment": lambda batch, generator: batch,
            "clip_norm": 1.0,
            "loss": TASK.loss,
            "validation_loss": TASK.loss,
            "curves": TASK.curves,
            "seed": 0,
        }
        return fit(
            self.model, self.train, self.validation, optimizer=self.optimizer, epochs=epochs, **(settings | changes)
        )


@pytest.fixture
def trainable(blobs: tuple[np.ndarray, np.ndarray]) -> Callable[..., Trainable]:
    def build(optimizer: str = "adamw", memory_fraction: float = 1.0) -> Trainable:
        torch.manual_seed(0)
        architecture = Candidate(layer="gru", hidden=[8, 8], dropout=0.1).architecture
        model = assemble(architecture, input_shape=[8, 8, 1], outputs=CLASSES, mean=[0.2], std=[0.2])
        images, labels = blobs

        def batches(rows: np.ndarray) -> Batches:
            return Batches(
                images,
                rows,
                np.ones(len(rows), np.int64),
                labels[rows],
                batch_size=32,
                device=torch.device("cpu"),
                memory_fraction=memory_fraction,
            )

        built = build_optimizer(optimizer, model.parameters(), learning_rate=0.01, weight_decay=0.01, momentum=0.9)
        return Trainable(model, built, batches(np.arange(200)), batches(np.arange(200, IMAGES)))

    return build
