"""The registered model with the alias `champion`, as something that answers for image files and arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from recursight.data.images import BadImage, Resize, decode
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load
from recursight.registry import CHAMPION, version_with
from recursight.tracking import connect
from recursight.tracking.connection import fluent

BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        label: the likeliest class.
        probability: of that class.
        probabilities: of all classes.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Champion:
    """A loaded model.

    Attributes:
        name: of the registered model.
        version: which one it is.
        classes: that it knows.
        input_shape: H, W, C of the images that it takes.
        resize: how an image of another size is fitted.
        model: MLflow's pyfunc.
    """

    name: str
    version: int
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    resize: Resize
    model: Any

    def predict(self, images: np.ndarray) -> list[Prediction]:
        """Answers for raw uint8 images (N, H, W, C), for any N."""
        if not len(images):
            return []
        answers = self.model.predict(images)
        return [Prediction(*row) for row in answers[["class", "probability", "probabilities"]].itertuples(index=False)]

    def predict_files(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Prediction]]:
        """Decodes images as `prepare` does, and answers for each.

        Raises:
            InputError: naming every file of the batch that is missing or cannot be decoded.
        """
        for start in range(0, len(paths), BATCH):
            group = paths[start : start + BATCH]
            yield from zip(group, self.predict(self._decoded(group)), strict=True)

    def _decoded(self, paths: Sequence[Path]) -> np.ndarray:
        height, width, depth = self.input_shape
        channels: Literal["grey", "rgb"] = "grey" if depth == 1 else "rgb"
        images, faults = [], []
        for path in paths:
            try:
                images.append(decode(path, (height, width), self.resize, channels))
            except BadImage as fault:
                faults.append(f"{path}: {_reason(path, fault)}")
        if faults:
            raise InputError("\n".join(faults))
        return np.stack(images)


def load_champion(layout: Layout) -> Champion:
    """Loads the model that is in production.

    Raises:
        InputError: if there is no champion, or it cannot be loaded.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    version = version_with(connect(layout), name, CHAMPION)
    if version is None:
        raise InputError(f"The model {name!r} has no champion yet: make one with `recursight register`.")
    try:
        with fluent(layout):
            import mlflow.pyfunc

            model = mlflow.pyfunc.load_model(f"models:/{name}/{version.version}")
        about = model.metadata.metadata
        shape = cast(tuple[int, int, int], tuple(about["input_shape"]))
        return Champion(name, int(version.version), tuple(about["classes"]), shape, about["resize"], model)
    except Exception as error:  # whatever a model's code or files can raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"Version {version.version} of {name!r}, the champion, cannot be loaded: {reason}") from None


def _reason(path: Path, fault: BadImage) -> str:
    if path.is_dir():
        return "is a folder; name image files."
    return str(fault) if path.exists() else "does not exist."
