"""A second task, defined here alone: how bright is the image? With its own loss, score, metrics and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from torch import Tensor

from recursight.layout import Layout
from recursight.tasks import Batch, Metric, Task, mean_of

from . import brightness_answers

NAME = "brightness"


@dataclass(frozen=True)
class Brightness(Task):
    """The mean grey level of an image, from 0 to 1, as written in the target's value."""

    def vocabulary(self, targets: pd.DataFrame) -> list[str]:
        return []

    def outputs(self, vocabulary: Sequence[str]) -> int:
        return 1

    def encode(self, examples: pd.DataFrame, targets: pd.DataFrame, vocabulary: Sequence[str]) -> np.ndarray:
        return targets.set_index("example")["value"].astype(float).loc[examples.index].to_numpy(np.float32)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs.squeeze(1).float() - batch.targets) ** 2

    def curves(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"absolute_error": (outputs.squeeze(1) - batch.targets).abs()}

    def answers(self, outputs: Tensor) -> Tensor:
        return outputs.clamp(0, 1)

    def score(
        self, answers: np.ndarray, targets: np.ndarray, vocabulary: Sequence[str], examples: pd.DataFrame
    ) -> pd.DataFrame:
        predicted = answers.reshape(-1).astype(float)
        error = np.abs(predicted - targets)
        return pd.DataFrame({"actual": targets, "predicted": predicted, "error": error, "square": error**2})

    @property
    def metrics(self) -> Mapping[str, Metric]:
        error = mean_of("error", name="absolute_error", title="absolute error", higher_is_better=False)
        square = mean_of("square", name="squared_error", title="squared error", higher_is_better=False)
        return {metric.name: metric for metric in (error, square)}

    @property
    def minimums(self) -> Mapping[str, float]:
        return {"absolute_error": 0.2}

    @property
    def rendering(self) -> ModuleType:
        return brightness_answers


def project(root: Path, candidates: dict[str, dict[str, Any]], seeds: Sequence[int] = (0,)) -> Layout:
    """A project whose data are grey images of known brightness, listed in a manifest, without splits."""
    data = root / "data"
    data.mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(240):
        level = draw.uniform(30, 220)
        pixels = np.clip(draw.normal(level, 25, (6, 6)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
        lines.append(f"{number}.png,{pixels.mean() / 255:.6f}")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    layout = Layout(root)
    content = {
        "task": NAME,
        "seeds": list(seeds),
        "train": {"epochs": 12, "batch_size": 32, "learning_rate": 0.02},
        "execution": {"device": "cpu"},
        "compare": {"bootstrap_samples": 300},
        "candidates": candidates,
    }
    layout.params.write_text(yaml.safe_dump(content))
    return layout
