"""A registered version as something that answers, and the images to ask it about."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import numpy as np
import pandas as pd

from recursight.data.images import Resize
from recursight.data.prepare import prepare
from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.models.kernels.memory import keep_freed_memory
from recursight.params import Prepare
from recursight.tracking.connection import fluent
from recursight.tracking.results import prepared_with

BATCH = 1024
LATENCY_ANSWERS = 30
KEPT_BYTES = 32 << 20  # tensors of a batch; not the pixels of a large photograph


class Unreadable(InputError):
    """A version cannot be loaded, or not be asked about the present images."""


@dataclass(frozen=True)
class LoadedVersion:
    """A version of the registered model, through MLflow, with its own preprocessing.

    Attributes:
        name: of the registered model.
        version: its number.
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

    def answers(self, images: np.ndarray) -> pd.DataFrame:
        """Columns class, probability and probabilities, for raw uint8 images (N, H, W, C)."""
        answers: pd.DataFrame = self.model.predict(images)
        return answers

    def scores(self, images: np.ndarray) -> np.ndarray:
        """The probabilities alone: float64 (N, K), columns in the order of `classes`, of images as above.

        Twice as fast as `answers` for a single image where the model can give them without a table.
        """
        if not len(images):
            return np.empty((0, len(self.classes)))
        direct = getattr(self._classifier, "probabilities", None)
        if direct is not None and tuple(self._classifier.classes) == self.classes:
            parts = [
                direct(np.require(images[start : start + BATCH], np.uint8, ("C", "W")))
                for start in range(0, len(images), BATCH)
            ]
            return np.concatenate(parts)
        rows = self.answers(images)["probabilities"]
        return np.array([[answer[name] for name in self.classes] for answer in rows], np.float64)

    @cached_property
    def _classifier(self) -> Any:
        """What MLflow has wrapped; None for a model of another kind."""
        try:
            return self.model.unwrap_python_model()
        except Exception:  # as many kinds of model, as many errors
            return None

    def probabilities(self, images: np.ndarray, rows: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """N × K, float64, of some rows of images that may be memory-mapped; columns in the order of `classes`.

        Raises:
            Unreadable: if the model fails, or answers with something that is no probability.
        """
        parts = []
        for start in range(0, len(rows), BATCH):
            try:
                scores = self.scores(np.array(images[rows[start : start + BATCH]]))
                parts.append(scores[:, [self.classes.index(name) for name in classes]])
            except Exception as error:  # whatever a model's code can raise
                raise Unreadable(f"version {self.version} cannot predict: {_line(error)}") from None
        found = np.concatenate(parts)
        if not np.isfinite(found).all() or found.shape != (len(rows), len(classes)):
            raise Unreadable(f"version {self.version} answers with something that is no probability.")
        return found

    @property
    def parameters(self) -> int:
        """How many trainable values it has; raises Unreadable for a model that recursight did not make."""
        try:
            return sum(parameter.numel() for parameter in self._classifier.network.parameters())
        except Exception as error:
            raise Unreadable(f"the parameters of version {self.version} cannot be counted: {_line(error)}") from None

    def latency_milliseconds(self, image: np.ndarray) -> float:
        """Median time of one answer for one raw image (H, W, C), as `recursight serve` asks for it."""
        seconds = []
        for _ in range(LATENCY_ANSWERS):
            start = perf_counter()
            self.scores(image[np.newaxis])
            seconds.append(perf_counter() - start)
        return 1000 * median(seconds[LATENCY_ANSWERS // 5 :])


def load_version(layout: Layout, name: str, version: int) -> LoadedVersion:
    """Loads a version, in a process that then keeps the memory of one batch for the next.

    Raises:
        Unreadable: with the reason.
    """
    keep_freed_memory(KEPT_BYTES)
    try:
        with fluent(layout):
            import mlflow.pyfunc

            model = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
        about = model.metadata.metadata
        shape = cast(tuple[int, int, int], tuple(about["input_shape"]))
        return LoadedVersion(name, version, tuple(about["classes"]), shape, about["resize"], model)
    except Exception as error:  # whatever a model's code or files can raise
        raise Unreadable(f"version {version} cannot be loaded: {_line(error)}") from None


def check(loaded: LoadedVersion, images: np.ndarray) -> None:
    """Asks a version about one image and about N at once, as those who serve it will.

    Args:
        loaded: the version.
        images: raw uint8 (N, H, W, C), N at least 2.

    Raises:
        Unreadable: if it fails, or does not answer the same for an image alone as among others.
    """
    rows = np.arange(len(images))
    together = loaded.probabilities(images, rows, loaded.classes)
    alone = np.concatenate([loaded.probabilities(images, rows[[index]], loaded.classes) for index in (0, -1)])
    if not np.allclose(together.sum(axis=1), 1, atol=1e-3) or not np.allclose(together[[0, -1]], alone, atol=1e-4):
        raise Unreadable(f"version {loaded.version} answers otherwise for one image than for {len(images)} at once.")


@contextmanager
def images_for(
    layout: Layout, loaded: LoadedVersion, store: Store, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images (N, H, W, C), prepared as the version was trained, and which of them are `rows` of the store.

    A version that takes another size or colour, or fits images otherwise, gets the raw data prepared its own way.

    Raises:
        Unreadable: if that is not possible.
    """
    now = Prepare.model_validate(prepared_with(layout, store.digest) or {})
    fits_alike = now.size is None or now.resize == loaded.resize  # images of one size are not fitted at all
    if tuple(store.shape[1:]) == loaded.input_shape and fits_alike:
        yield store.images[:, 0], rows
        return
    with tempfile.TemporaryDirectory(prefix="recursight-") as folder:
        own = _prepared_for(layout, loaded, now, Path(folder) / "store")
        places = pd.Series(np.arange(len(own.manifest)), index=own.manifest["id"])
        found = places.reindex(store.manifest["id"].iloc[rows])
        if found.isna().any():
            raise Unreadable(f"version {loaded.version} takes other images, and the store was made of other data.")
        yield own.images[:, 0], found.to_numpy(dtype=np.int64)


def _prepared_for(layout: Layout, loaded: LoadedVersion, now: Prepare, folder: Path) -> Store:
    height, width, depth = loaded.input_shape
    try:
        prepare(
            layout.data,
            folder,
            size=(height, width),
            resize=loaded.resize,
            channels="grey" if depth == 1 else "rgb",
            validation=now.validation,
            test=now.test,
            seed=now.seed,
        )
        return open_store(folder)
    except InputError as error:
        raise Unreadable(
            f"version {loaded.version} takes other images, and data/ cannot be prepared for it: {error}"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
