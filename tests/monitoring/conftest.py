"""Fixtures: a trained project, and what a model says of real images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.data.statistics import image_statistics
from recursight.data.store import open_store
from tests.conftest import MNIST
from tests.projects import own_environment, project, trained

__all__ = ["Asked", "answered", "fashion_images", "own_environment", "project", "trained"]


class Asked:
    """A model and the images that it was tested on: what the log would hold of any images.

    The model is a linear one: what is tested here is told by its answers, whatever they come from.
    """

    def __init__(self, folder: Path, most: int) -> None:
        from sklearn.linear_model import LogisticRegression

        store = open_store(folder)
        rows = store.indices("train")[:3000]
        self.images = store.first_frames(store.indices("test")[:most])
        classes = store.targets_of(rows)["value"].cat.codes
        self.model = LogisticRegression(max_iter=60, tol=1e-2).fit(_flat(store.first_frames(rows)), classes)
        self.rows = self.ask(self.images)

    def ask(self, images: np.ndarray) -> pd.DataFrame:
        answers = self.model.predict_proba(_flat(images))
        said = {"predicted": answers.argmax(axis=1).astype(str), "confidence": answers.max(axis=1).astype(np.float32)}
        return pd.DataFrame(said | image_statistics(np.ascontiguousarray(images)))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


@pytest.fixture(scope="session")
def answered(request: pytest.FixtureRequest) -> Asked:
    """Over MNIST where there is a copy, else over the embedded digits."""
    return Asked(request.getfixturevalue("mnist_store" if MNIST.is_dir() else "digits_store"), most=4000)


@pytest.fixture(scope="session")
def fashion_images(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """2,000 test images of Fashion-MNIST, if there is a copy."""
    from recursight.data.prepare import prepare

    folder = MNIST.parent / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip(f"no copy of Fashion-MNIST at {folder}")
    store = tmp_path_factory.mktemp("fashion") / "store"
    prepare(folder, store)
    opened = open_store(store)
    return opened.first_frames(opened.indices("test")[:2000])
