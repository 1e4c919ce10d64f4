"""Batches are the same from memory and from disk, and each epoch shows each image once."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.growth import point

from recursight.training.batches import Batches


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """A memory map in which image n is filled with n."""
    path = tmp_path / "images.npy"
    np.save(path, np.arange(100, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 1, 2, 3, 1), np.uint8))
    return np.load(path, mmap_mode="r")


def batches(images: np.ndarray, memory_fraction: float) -> Batches:
    rows = np.arange(10, 80)
    return Batches(
        images,
        rows,
        rows.astype(np.int64),
        batch_size=16,
        device=torch.device("cpu"),
        memory_fraction=memory_fraction,
    )


@pytest.mark.parametrize("memory_fraction", [1.0, 0.0], ids=["resident", "streamed"])
def test_each_image_once_with_its_label(images: np.ndarray, memory_fraction: float) -> None:
    part = batches(images, memory_fraction)
    seen = []
    for pictures, labels in part.shuffled(0):
        assert pictures.shape[1:] == (2, 3, 1)
        assert torch.equal(pictures[:, 0, 0, 0].long(), labels)
        seen += labels.tolist()
    assert sorted(seen) == list(range(10, 80))
    assert seen != sorted(seen)
    assert len(part) == 5
    assert part.count == 70


def test_streaming_gives_what_memory_gives(images: np.ndarray) -> None:
    resident, streamed = batches(images, 1.0), batches(images, 0.0)
    assert (resident.resident, streamed.resident) == (True, False)
    for one, other in zip(resident.shuffled(7), streamed.shuffled(7), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_seed_is_an_order(images: np.ndarray) -> None:
    part = batches(images, 1.0)
    orders = [torch.cat([labels for _, labels in part.shuffled(seed)]).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_in_order(images: np.ndarray) -> None:
    labels = torch.cat([labels for _, labels in batches(images, 0.0).in_order()])
    assert labels.tolist() == list(range(10, 80))


def test_stopping_in_the_middle_of_a_stream_ends_its_reader(images: np.ndarray) -> None:
    stream = batches(images, 0.0).shuffled(0)
    next(stream)
    assert any(map(is_reader, threading.enumerate()))
    stream.close()
    assert not any(map(is_reader, threading.enumerate()))


def is_reader(thread: threading.Thread) -> bool:
    return thread.name.startswith("batches")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what is held from /proc")
def test_a_stream_holds_no_more_of_more_images() -> None:
    (_, few), (_, many) = (point("images, streamed", size) for size in (1_000, 60_000))  # 0.8 and 47 MB
    assert many - few < 15
