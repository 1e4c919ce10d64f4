"""Loads a registered version, and finds the images to run it on."""

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
from recursight.files import read_json
from recursight.layout import Layout
from recursight.models.kernels.memory import keep_freed_memory
from recursight.params import Prepare
from recursight.registry.archive import check_archive
from recursight.registry.versions import FILES, changed_files
from recursight.tasks import Task, task_of
from recursight.tracking.connection import fluent
from recursight.tracking.results import prepared_with

if TYPE_CHECKING:
    from recursight.registry.program import LoadedProgram

BATCH = 1024  # examples read from disk at a time
KEPT_BYTES = 32 << 20  # covers the tensors of a batch, not the pixels of a large photograph


class Unreadable(InputError):
    """A version cannot be loaded, or cannot be run on these images."""


@dataclass(frozen=True)
class LoadedVersion:
    """A version of the registered model, with what its preprocessing needs.

    Attributes:
        name: of the registered model.
        version: its number.
        task: that it was trained for.
        vocabulary: classes or words, in the order of its outputs.
        input_shape: H, W, C of its input images.
        resize: how images of another size are resized.
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
        except Exception as error:  # a program can raise anything
            raise Unreadable(f"version {self.version} cannot predict: {_line(error)}") from None
        if not np.isfinite(found).all() or len(found) != len(images if rows is None else rows):
            raise Unreadable(f"version {self.version} returns NaN, infinity, or the wrong number of answers.")
        return found

    def latency_milliseconds(self, image: np.ndarray) -> float:
        """Median time of one answer for one raw image (H, W, C), on as many threads as torch has now."""
        from recursight.evaluation.predict import latency_milliseconds

        return latency_milliseconds(self.program, image[np.newaxis])


def load_version(layout: Layout, name: str, version: int) -> LoadedVersion:
    """Loads a version.

    Every command that runs a registered model loads it here. No code in the model runs: its network is data, which
    recursight's own code executes.

    Raises:
        Unreadable: with the reason.
    """
    from recursight.registry.program import LoadedProgram

    keep_freed_memory(KEPT_BYTES)
    with files_of(layout, name, version) as artifacts:
        about = read_json(artifacts / "about.json")
        return LoadedVersion(
            name=name,
            version=version,
            task=task_of(about["task"]),
            vocabulary=tuple(about["vocabulary"]),
            input_shape=cast(tuple[int, int, int], tuple(about["input_shape"])),
            resize=about["resize"],
            program=LoadedProgram(artifacts / "network.pt2"),
        )


@contextmanager
def files_of(layout: Layout, name: str, version: int) -> Iterator[Path]:
    """Yields a temporary folder with the artifacts of a version, which have been checked.

    Raises:
        Unreadable: if the files are not those that `register` has recorded, or the network could run code; also for
            whatever the block raises.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="recursight-") as folder:
            _download(layout, name, version, Path(folder))
            yield Path(folder) / "artifacts"
    except Exception as error:  # forged or broken files can raise anything
        raise Unreadable(f"version {version} cannot be loaded: {_line(error)}") from None


def _download(layout: Layout, name: str, version: int, folder: Path) -> None:
    """Downloads the files of a version, and checks them."""
    with fluent(layout) as mlflow:
        recorded = mlflow.MlflowClient().get_model_version(name, str(version)).tags.get(FILES)
        if recorded is None:
            raise ValueError(
                "recursight has recorded no digests of its files: another program or an earlier release registered it; "
                "`recursight register` records the winner's, any other model must be trained again."
            )
        mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder))
    if changed := changed_files(recorded, folder):
        raise ValueError(
            f"its files were changed after it was registered ({', '.join(changed)}); `recursight rollback VERSION` "
            "selects another version."
        )
    check_archive(folder / "artifacts" / "network.pt2")


def check_answers(loaded: LoadedVersion, images: np.ndarray) -> None:
    """Runs a version on one image and on a batch, as `serve` does.

    Args:
        loaded: the version.
        images: raw uint8 (N, H, W, C), N at least 2.

    Raises:
        Unreadable: if it fails, or its answers for an image depend on the rest of the batch.
    """
    together = loaded.answers(images)
    alone = np.concatenate([loaded.answers(images[:1]), loaded.answers(images[-1:])])
    if not np.allclose(together[[0, -1]], alone, atol=1e-4):
        raise Unreadable(
            f"version {loaded.version} answers differently for one image than for a batch of {len(images)}."
        )


@contextmanager
def images_for(
    layout: Layout, loaded: LoadedVersion, store: Store, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images (N, H, W, C), prepared as for the version's training, and the indices among them of the given rows.

    If the version expects another size, colour mode or resizing, the raw data is prepared again for it.

    Raises:
        Unreadable: if that is not possible.
    """
    now = Prepare.model_validate(prepared_with(layout, store.digest) or {})
    fits_alike = now.size is None or now.resize == loaded.resize  # images of equal size are not resized
    if tuple(store.shape) == loaded.input_shape and fits_alike:
        yield store.frames, rows
        return
    with tempfile.TemporaryDirectory(prefix="recursight-") as folder:
        own = _prepared_for(layout, loaded, now, Path(folder) / "store")
        places = pd.Series(np.arange(len(own.examples)), index=own.examples["id"])
        found = places.reindex(store.examples["id"].iloc[rows])
        if found.isna().any():
            raise Unreadable(
                f"version {loaded.version} expects other images, and data/ has changed since the store was made; "
                "run `dvc repro`."
            )
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
            f"version {loaded.version} expects other images, and data/ cannot be prepared for it: {error}"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
