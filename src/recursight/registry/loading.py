"""A registered version in memory, and the images to run it on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from recursight.data.images import Resize
from recursight.data.prepare import prepare
from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.models.kernels.memory import keep_freed_memory
from recursight.params import Prepare
from recursight.tasks import Task, task_of
from recursight.tracking.connection import fluent
from recursight.tracking.results import prepared_with

if TYPE_CHECKING:
    from recursight.registry.program import LoadedProgram

BATCH = 1024  # examples read from disk at once
KEPT_BYTES = 32 << 20  # tensors of a batch; not the pixels of a large photograph


class Unreadable(InputError):
    """A version cannot be loaded, or not be run on the present images."""


@dataclass(frozen=True)
class LoadedVersion:
    """A version of the registered model, loaded through MLflow, with its own preprocessing.

    Attributes:
        name: of the registered model.
        version: its number.
        task: what it answers.
        vocabulary: classes or words, in the order of its outputs.
        input_shape: H, W, C of the images that it takes.
        resize: how an image of another size is fitted.
        program: uint8 images (N, H, W, C) to float64 answers (N, ...).
    """

    name: str
    version: int
    task: Task
    vocabulary: tuple[str, ...]
    input_shape: tuple[int, int, int]
    resize: Resize
    program: "LoadedProgram"

    def answers(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Float64 answers (N, ...) for raw uint8 images (N, H, W, C), or for some rows of them.

        Raises:
            Unreadable: if the program fails, or answers with NaN or infinity.
        """
        try:
            if rows is None:
                found = self.program(images)
            else:  # memory-mapped: one batch at a time is read
                starts = range(0, max(len(rows), 1), BATCH)
                found = np.concatenate([self.program(np.array(images[rows[at : at + BATCH]])) for at in starts])
        except Exception as error:  # whatever a model's code can raise
            raise Unreadable(f"version {self.version} cannot predict: {_line(error)}") from None
        if not np.isfinite(found).all() or len(found) != len(images if rows is None else rows):
            raise Unreadable(f"version {self.version} answers with NaN, infinity, or for another number of images.")
        return found

    def latency_milliseconds(self, image: np.ndarray) -> float:
        """Median time of one answer for one raw image (H, W, C), on as many threads as torch has now."""
        from recursight.evaluation.predict import latency_milliseconds

        return latency_milliseconds(self.program, image)


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
        about = model.metadata.metadata or {}
        if "task" not in about:
            raise ValueError("an earlier version of recursight made it; train again and register the winner.")
        return LoadedVersion(
            name=name,
            version=version,
            task=task_of(about["task"]),
            vocabulary=tuple(about["vocabulary"]),
            input_shape=cast(tuple[int, int, int], tuple(about["input_shape"])),
            resize=about["resize"],
            program=model.unwrap_python_model().program,
        )
    except Exception as error:  # whatever a model's code or files can raise
        raise Unreadable(f"version {version} cannot be loaded: {_line(error)}") from None


def check_answers(loaded: LoadedVersion, images: np.ndarray) -> None:
    """Runs a version on one image and on N at once, as it will be served.

    Args:
        loaded: the version.
        images: raw uint8 (N, H, W, C), N at least 2.

    Raises:
        Unreadable: if it fails, or does not answer the same for an image alone as among others.
    """
    together = loaded.answers(images)
    alone = np.concatenate([loaded.answers(images[:1]), loaded.answers(images[-1:])])
    if not np.allclose(together[[0, -1]], alone, atol=1e-4):
        raise Unreadable(f"version {loaded.version} answers differently for one image than for {len(images)} at once.")


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
    if tuple(store.shape) == loaded.input_shape and fits_alike:
        yield store.frames, rows
        return
    with tempfile.TemporaryDirectory(prefix="recursight-") as folder:
        own = _prepared_for(layout, loaded, now, Path(folder) / "store")
        places = pd.Series(np.arange(len(own.examples)), index=own.examples["id"])
        found = places.reindex(store.examples["id"].iloc[rows])
        if found.isna().any():
            raise Unreadable(f"version {loaded.version} takes other images, and the store was made of other data.")
        yield own.frames, found.to_numpy(dtype=np.int64)


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
