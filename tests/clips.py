"""Stores of clips: a bright bar that moves to the right or to the left, in clips of unlike length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recursight.data.store import FrameWriter
from recursight.files import write_json

SIDE = 8


def moving_bar(direction: int, length: int, draw: np.random.Generator) -> np.ndarray:
    """uint8, T H W 1: a bar that starts anywhere, so that a single frame says nothing of its direction."""
    frames = draw.integers(0, 30, (length, SIDE, SIDE, 1), np.uint8)
    start = draw.integers(SIDE)
    for step, frame in enumerate(frames):
        frame[:, (start + direction * step) % SIDE] = 220
    return frames


def write_store(folder: Path, count: int = 120, lengths: Sequence[int] = (4, 9), seed: int = 0) -> Path:
    """A store of clips of the classes `left` and `right`: two thirds for training, the rest shared by the others."""
    draw = np.random.default_rng(seed)
    values = np.arange(count) % 2
    clips = [moving_bar(1 if value else -1, int(draw.integers(*lengths)), draw) for value in values]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "frames.npy").open("wb") as stream:
        writer = FrameWriter(stream)
        writer.append(np.concatenate(clips), [len(clip) for clip in clips])
        writer.finish()
    splits = np.array(["train", "train", "train", "train", "validation", "test"])[np.arange(count) // 2 % 6]
    frames = writer.lengths
    examples = {
        "id": [f"clip {number}" for number in range(count)],
        "first_frame": np.cumsum(frames) - frames,
        "frames": frames,
        "rate": np.float32(10),
        "split": splits,
        "group": "",
        "sha256": [f"{number:064x}" for number in range(count)],
    }
    pd.DataFrame(examples).to_parquet(folder / "examples.parquet")
    value = pd.Categorical.from_codes(values, ["left", "right"])
    targets = {"example": np.arange(count), "start_frame": 0, "end_frame": frames, "value": value}
    pd.DataFrame(targets).to_parquet(folder / "targets.parquet")
    mean, deviation = writer.moments(splits == "train")
    pd.DataFrame(writer.statistics()).to_parquet(folder / "statistics.parquet")
    write_json(folder / "store.json", {"mean": mean, "std": deviation, "digest": f"clips-{seed}", "window": None})
    return folder
