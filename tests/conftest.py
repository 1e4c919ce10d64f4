"""Real data for every test: the embedded digits, and MNIST where a copy of it lies beside the repository."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recursight.data.prepare import prepare
from recursight.data.published import make_digits
from tests import processes
from tests.workspace import Workspace

ROOT = Path(__file__).parents[1]

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Begun first, longest first: a long file that is begun last is waited for alone. Any other order is as right.
LONGEST = (
    "test_platform.py",
    "test_pipeline.py",
    "test_doctor.py",
    "test_docs.py",
    "test_retrain.py",
    "test_sharing.py",
    "test_kills.py",
    "test_decoding.py",
    "test_stopping.py",
    "test_folder.py",
    "test_train.py",
    "test_failures.py",
    "test_restore.py",
    "test_monitor.py",
    "test_server_life.py",
    "test_champion.py",
    "test_mlflow_serve.py",
    "test_openapi.py",
    "test_live.py",
    "test_disks.py",
    "test_kernels.py",
    "test_layers.py",
    "test_imports.py",
    "test_batches.py",
)

MNIST = ROOT.parent / "shared" / "data" / "mnist"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(processes)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _shared_by_all_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What every workspace starts from is made by one worker, and copied by all."""
    own = tmp_path_factory.getbasetemp()
    Workspace.shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


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


@pytest.fixture(scope="session")
def dvc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.dvc` that `dvc init --no-scm` makes. Only copy it."""
    root = tmp_path_factory.mktemp("initialised")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    return root / ".dvc"
