"""The registered model with the alias `champion`, loaded, and its answers for image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from recursight.data.images import BadImage
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load
from recursight.registry import CHAMPION, version_with
from recursight.registry.loading import LoadedVersion, Unreadable, load_version
from recursight.serving.uploads import decode_to
from recursight.tracking import connect

BATCH = 256


def load_champion(layout: Layout) -> LoadedVersion:
    """Loads the model that is in production.

    Raises:
        InputError: if there is no champion, or it cannot be loaded.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    version = version_with(connect(layout), name, CHAMPION)
    if version is None:
        raise InputError(
            f"The model {name!r} has no champion yet: `recursight register` makes the winner of a comparison one, if "
            "it reaches the minimums in params.yaml; `recursight history` lists those that did not."
        )
    try:
        return load_version(layout, name, int(version.version))
    except Unreadable as error:
        raise InputError(f"The champion of {name!r} cannot be used: {error}") from None


def decode_for(model: LoadedVersion, image: bytes | Path | np.ndarray) -> np.ndarray:
    """Decodes an image, or fits uint8 pixels, as `prepare` did for this model: uint8 (H, W, C).

    Raises:
        BadImage: if it cannot be decoded.
    """
    return decode_to(image, model.input_shape, model.resize)


def predict_files(
    model: LoadedVersion, paths: Sequence[Path]
) -> Iterator[tuple[Sequence[Path], np.ndarray, np.ndarray]]:
    """Answers for image files, batch by batch: paths, images (N, H, W, C), answers (N, ...).

    Raises:
        InputError: naming every file of the batch that is missing or cannot be decoded.
    """
    for start in range(0, len(paths), BATCH):
        group = paths[start : start + BATCH]
        images = _decoded(model, group)
        yield group, images, model.answers(images)


def _decoded(model: LoadedVersion, paths: Sequence[Path]) -> np.ndarray:
    images, faults = [], []
    for path in paths:
        try:
            images.append(decode_for(model, path))
        except BadImage as fault:
            faults.append(f"{path}: {_reason(path, fault)}")
    if faults:
        raise InputError("\n".join(faults))
    return np.stack(images)


def _reason(path: Path, fault: BadImage) -> str:
    if path.is_dir():
        return "is a folder; score it with `recursight predict FOLDER --out predictions.parquet`."
    return str(fault) if path.exists() else "does not exist."
