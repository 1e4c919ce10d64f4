"""Real data for every test: the embedded digits, and MNIST where a copy of it lies beside the repository."""

import signal
from pathlib import Path

import pytest

from recursight.data.prepare import prepare
from recursight.data.published import make_digits

ROOT = Path(__file__).parents[1]

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

MNIST = ROOT.parent / "shared" / "data" / "mnist"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set: 1,797 grey 8×8 images, 10 classes, as IDX files, made from scikit-learn. Only read it."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder)
    return folder


@pytest.fixture(scope="session")
def digits_store(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the embedded data set, as params.yaml has it prepared. Only read it."""
    store = tmp_path_factory.mktemp("store") / "digits"
    prepare(digits, store)
    return store


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The four files of MNIST, if there is a copy."""
    if not MNIST.is_dir():
        pytest.skip(f"no copy of MNIST at {MNIST}")
    return MNIST


@pytest.fixture(scope="session")
def mnist_store(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of MNIST. Only read it."""
    store = tmp_path_factory.mktemp("store") / "mnist"
    prepare(mnist, store)
    return store
