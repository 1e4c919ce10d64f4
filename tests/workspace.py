"""A copy of this very repository, as a user has it after `git clone`, with few and short trainings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent

SMALL: dict[str, Any] = {
    "train": {"epochs": 6, "learning_rate": 0.01},
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
    """

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
            **{name: value for name, value in os.environ.items() if name.startswith(("PYTHONDONT", "LANG", "LC_"))},
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

    def run(self, *command: str, status: int = 0, timeout_seconds: float = 240) -> str:
        """Runs a command; what it printed, both streams together."""
        finished = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_seconds,
        )
        assert finished.returncode == status, (
            f"{' '.join(command)} ended with {finished.returncode}:\n{finished.stdout}"
        )
        return finished.stdout

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
