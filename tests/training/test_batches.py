"""Batches are the same from memory and from disk, and each epoch has each example once."""

import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.growth import point

from recursight.data.store import FrameWriter, open_store
from recursight.files import write_json
from recursight.training.batches import Batches
from recursight.training.step import tensors
from recursight.training.windows import frame_numbers


@pytest.fixture
def frames(tmp_path: Path) -> np.ndarray:
    """A memory map in which frame n is filled with n."""
    path = tmp_path / "frames.npy"
    np.save(path, np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8))
    return np.load(path, mmap_mode="r")


def batches(frames: np.ndarray, memory_fraction: float, lengths: list[int] | None = None) -> Batches:
    """Of stills, those of frames 10 to 79; of clips of the given lengths, which begin with frame 10."""
    counts = np.ones(70, np.int64) if lengths is None else np.array(lengths)
    first = 10 + np.cumsum(counts) - counts
    settings = {"batch_size": 16, "device": torch.device("cpu"), "memory_fraction": memory_fraction}
    return Batches(frames, first, counts, first.astype(np.int64), **settings)


@pytest.mark.parametrize("memory_fraction", [1.0, 0.0], ids=["resident", "streamed"])
def test_each_image_once_with_its_target(frames: np.ndarray, memory_fraction: float) -> None:
    part = batches(frames, memory_fraction)
    seen = []
    for batch in part.shuffled(0):
        assert batch.inputs.shape[1:] == (2, 3, 1)
        assert batch.lengths is None
        assert torch.equal(batch.inputs[:, 0, 0, 0].long(), batch.targets)
        seen += batch.targets.tolist()
    assert sorted(seen) == list(range(10, 80))
    assert seen != sorted(seen)
    assert len(part) == 5
    assert part.count == 70


@pytest.mark.parametrize("lengths", [None, [3, 1, 7, 2] * 5], ids=["stills", "clips"])
def test_streaming_gives_what_memory_gives(frames: np.ndarray, lengths: list[int] | None) -> None:
    resident, streamed = batches(frames, 1.0, lengths), batches(frames, 0.0, lengths)
    assert (resident.resident, streamed.resident) == (True, False)
    for one, other in zip(resident.shuffled(7), streamed.shuffled(7), strict=True):
        assert tensors(one).keys() == tensors(other).keys()
        for name, value in tensors(one).items():
            assert torch.equal(value, getattr(other, name))


@pytest.mark.parametrize("memory_fraction", [1.0, 0.0], ids=["resident", "streamed"])
def test_clips_are_whole_and_one_after_another(frames: np.ndarray, memory_fraction: float) -> None:
    (batch,) = batches(frames, memory_fraction, [2, 5, 1]).in_order()
    assert batch.inputs.shape == (8, 2, 3, 1)
    assert batch.inputs.dtype == torch.uint8
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [2, 5, 1]
    assert batch.inputs[:, 0, 0, 0].tolist() == list(range(10, 18))


@pytest.mark.parametrize("memory_fraction", [1.0, 0.0], ids=["resident", "streamed"])
def test_targets_of_frames_stay_beside_their_frames(frames: np.ndarray, memory_fraction: float) -> None:
    lengths, first = np.array([6, 2, 4, 6, 3]), np.array([10, 30, 13, 50, 70])  # the first and third share frames
    targets = frame_numbers(first, lengths)
    settings = {"batch_size": 2, "device": torch.device("cpu"), "memory_fraction": memory_fraction}
    part = Batches(frames, first, lengths, targets, per_frame=True, **settings)
    seen = []
    for batch in part.shuffled(3):
        assert torch.equal(batch.inputs[:, 0, 0, 0].long(), batch.targets)
        assert batch.lengths is not None
        assert len(batch.inputs) == batch.lengths.sum()
        seen += batch.targets.tolist()
    assert sorted(seen) == sorted(targets.tolist())


def test_a_batch_has_clips_of_similar_length(frames: np.ndarray) -> None:
    lengths = np.tile([1, 9], 10)
    settings = {"batch_size": 5, "device": torch.device("cpu"), "memory_fraction": 1.0}
    part = Batches(frames, np.zeros_like(lengths), lengths, np.arange(20), **settings)
    assert {len(set(batch.lengths.tolist())) for batch in part.shuffled(0) if batch.lengths is not None} == {1}


def test_a_written_store_of_clips_comes_back_in_batches(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    clips = [draw.integers(0, 256, (length, 2, 3, 1), np.uint8) for length in (3, 1, 4, 2)]
    with (tmp_path / "frames.npy").open("wb") as stream:
        writer = FrameWriter(stream)
        for part in (clips[:1], clips[1:]):
            writer.append(np.concatenate(part), [len(clip) for clip in part])
        writer.finish()
    assert writer.lengths.tolist() == [3, 1, 4, 2]
    mean, deviation = writer.moments(np.array([True, False, True, False]))
    pixels = np.concatenate([clips[0], clips[2]]) / 255
    assert (mean[0], deviation[0]) == (pytest.approx(pixels.mean(), abs=1e-6), pytest.approx(pixels.std(), abs=1e-6))
    bright = [clip.mean() / 255 for clip in clips]
    assert writer.statistics()["brightness"] == pytest.approx(bright, abs=1e-6)
    first = np.cumsum(writer.lengths) - writer.lengths
    columns = {"id": list("abcd"), "first_frame": first, "frames": writer.lengths, "split": "train"}
    pd.DataFrame(columns).to_parquet(tmp_path / "examples.parquet")
    targets = {"example": [0, 0, 2], "start_frame": [0, 2, 1], "end_frame": [1, 3, 4], "value": list("xyx")}
    pd.DataFrame(targets).astype({"value": "category"}).to_parquet(tmp_path / "targets.parquet")
    write_json(tmp_path / "store.json", {"mean": mean, "std": deviation, "digest": "d"})
    store = open_store(tmp_path)
    assert (store.stills, store.shape) == (False, (2, 3, 1))
    assert store.targets_of(np.array([0]))["value"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(store.first_frames(np.array([2])), clips[2][:1])
    settings = {"batch_size": 4, "device": torch.device("cpu"), "memory_fraction": 1.0}
    (batch,) = Batches(
        store.frames, store.examples["first_frame"].to_numpy(), store.examples["frames"].to_numpy(), first, **settings
    ).in_order()
    np.testing.assert_array_equal(batch.inputs.numpy(), np.concatenate(clips))


def test_a_seed_is_an_order(frames: np.ndarray) -> None:
    part = batches(frames, 1.0)
    orders = [torch.cat([batch.targets for batch in part.shuffled(seed)]).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_in_order(frames: np.ndarray) -> None:
    targets = torch.cat([batch.targets for batch in batches(frames, 0.0).in_order()])
    assert targets.tolist() == list(range(10, 80))


def test_stopping_in_the_middle_of_a_stream_ends_its_reader(frames: np.ndarray) -> None:
    stream = batches(frames, 0.0).shuffled(0)
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
