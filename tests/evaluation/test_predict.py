"""Streaming must not change the answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.evaluation.predict import Program, answers, images_per_second, latency_milliseconds
from recursight.tasks.classification import Classification

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """Logits are the first three pixels; it remembers the batches it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(images))
        return images.flatten(1)[:, :3].float() / 50


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """Memory-mapped and read-only, as in the store."""
    path = tmp_path / "frames.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, size=(50, 4, 4, 1), dtype=np.uint8))
    return np.load(path, mmap_mode="r")


def test_answers_follow_the_rows_in_any_order(images: np.ndarray) -> None:
    model = Pixels()
    rows = np.array([7, 3, 3, 49, 0, 20, 21])
    answer = answers(Program(model, Classification()), images, rows, batch_size=3, device=CPU)
    assert model.batches == [3, 3, 1]
    logits = images[rows].reshape(7, -1)[:, :3] / 50
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert answer.dtype == np.float32
    assert answer == pytest.approx(expected, abs=1e-6)


def test_answers_that_are_no_numbers_are_refused(images: np.ndarray) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 2), torch.nan)

    with pytest.raises(InputError, match="NaN"):
        answers(Program(Broken(), Classification()), images, np.arange(4), batch_size=2, device=CPU)


def test_speed_is_that_of_one_image_and_of_a_batch(images: np.ndarray) -> None:
    asked: list[int] = []
    assert latency_milliseconds(lambda batch: asked.append(len(batch)), images[:1]) > 0
    assert set(asked) == {1}
    assert len(asked) >= 2 + 5  # warm-up, then enough for a median
    model = Pixels()
    assert images_per_second(model, images, device=CPU, seconds=0.01) > 0
    assert set(model.batches) == {50}
