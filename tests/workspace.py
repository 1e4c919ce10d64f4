"""A copy of this very repository, as a user has it after `git clone`, with few and short trainings."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import yaml
from filelock import FileLock

from tests import processes

ROOT = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent
INHERITED = ("LANG", "LC_", "OMP_", processes.MARK)

SMALL: dict[str, Any] = {
    "train": {"epochs": 6, "learning_rate": 0.01},
    "evaluate": {"mistakes": 4},
    "registry": {"minimums": {"accuracy": 0.5, "worst_class_recall": 0.0}},
    "candidates": {
        "elman": {"scan": "rows", "layer": "elman", "hidden": 24},
        "gru": {"scan": "rows", "layer": "gru", "hidden": 16},
    },
}


class Workspace:
    """A project folder and an environment of its own, in which commands are run.

    Args:
        folder: where the copy is made.

    Attributes:
        shared: a folder of this run of tests, in which what all copies start from is made once.
    """

    shared: ClassVar[Path]

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.environment = {
            "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),  # kernels are built once
            "PYTHONPATH": str(self.root / "src"),
            "PREFECT_HOME": str(folder / "prefect"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
            **{name: value for name, value in os.environ.items() if name.startswith(INHERITED)},
        }
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        self.run("git", "init", "--quiet")
        self.commit("as cloned")

    def run(self, *command: str, status: int = 0, timeout_seconds: float = 600, stays: bool = False) -> str:
        """Runs a command; what it printed, both streams together.

        Args:
            command: and its arguments.
            status: with which it must end.
            timeout_seconds: after which it is killed, with all that it has started.
            stays: whether what it starts is for later tests too, should this one fail.
        """
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment if stays else self.environment | processes.mark(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_seconds)
        except BaseException:
            processes.end_tree(process)
            raise
        assert process.returncode == status, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
        return output

    def fill(self) -> None:
        """Brings the digits and empty databases of Prefect and MLflow, as the first commands in a clone leave them."""
        used = _used_clone(self.shared)
        for name in ("data", ".dvc/cache"):
            shutil.copytree(used / "project" / name, self.root / name, dirs_exist_ok=True)
        shutil.copy2(used / "project" / "mlflow.db", self.root)
        for home in (Path(self.environment["PREFECT_HOME"]), self.root / ".recursight" / "prefect"):
            shutil.copytree(used / "prefect", home, dirs_exist_ok=True)

    def finish(self) -> dict[str, Any]:
        """Brings all that one `recursight pipeline` with the parameters SMALL makes; returns the outcome it printed."""
        finished = _finished_clone(self.shared)
        shutil.copytree(finished / "prefect", self.environment["PREFECT_HOME"], dirs_exist_ok=True)
        shutil.rmtree(self.root)  # with its history: the runs name a commit of the other one
        shutil.copytree(finished / "project", self.root, symlinks=True)
        move_tracking_store(finished / "project", self.root)
        outcome: dict[str, Any] = json.loads((finished / "outcome.json").read_text())
        return outcome

    def change_params(self, **sections: dict[str, Any]) -> None:
        """Lays values over sections of params.yaml; candidates are replaced as a whole."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            params[name] = values if name == "candidates" else params[name] | values
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def move_tracking_store(origin: Path, root: Path) -> None:
    """Makes a copied project's store its own: MLflow names files by absolute paths."""
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(origin), str(root)))
    database.close()


def _finished_clone(shared: Path) -> Path:
    """The folder of the one clone in which that pipeline was really run, by whichever worker came first."""
    folder = shared / "finished"
    with FileLock(f"{folder}.lock"):
        if not (folder / "outcome.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            made = Workspace(folder)
            made.change_params(**SMALL)
            made.fill()
            made.commit("few candidates")
            output = made.run("recursight", "pipeline", "--json")
            (folder / "outcome.json").write_text(output[output.index("{\n") :])
    return folder


def _used_clone(shared: Path) -> Path:
    """The folder of the one clone in which those commands were really given, by whichever worker came first."""
    folder = shared / "used"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            made = Workspace(shared / "making")
            made.run("dvc", "pull", "--quiet", "data.dvc")
            made.run("prefect", "server", "database", "upgrade", "--yes")
            made.run("recursight", "track", "sync")
            made.root.parent.rename(folder)
    return folder
