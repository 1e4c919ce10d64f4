"""Disturbs every command at a random moment: a process killed or paused, or the disk full. Then it is given again.

Each round starts from a copy of a project with a finished pipeline. `usual` holds what an undisturbed run leaves; a
disturbed one that is given again must leave the same, and `doctor` must find the same.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.aftermath import half_files, held_locks, processes_of, weights
from tests.workspace import SMALL, Workspace

PAUSE_SECONDS = 10.0
DISK_BYTES = 600_000_000
COMMAND_SECONDS = 300.0
DISTURBANCES = ("kill", "kill", "kill", "pause", "disk")


def _nothing(workspace: Workspace) -> None:
    """The finished project as it is."""


def _without_results(workspace: Workspace) -> None:
    for name in ("candidates", "evaluations", "comparison"):
        shutil.rmtree(workspace.root / "artifacts" / name)


def _other_winner(workspace: Workspace) -> None:
    path = workspace.root / "artifacts" / "comparison" / "comparison.json"
    found = json.loads(path.read_text())
    found["winner"] = next(name for name in SMALL["candidates"] if name != found["winner"])
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(json.dumps(found))


def _two_versions(workspace: Workspace) -> None:
    _other_winner(workspace)
    workspace.run("recursight", "register")


def _no_runs(workspace: Workspace) -> None:
    (workspace.root / "mlflow.db").unlink()


@dataclass(frozen=True)
class Job:
    """A command, and what is done to the finished project before it."""

    before: Callable[[Workspace], None]
    command: tuple[str, ...]


JOBS = {
    "import": Job(_nothing, ("recursight", "data", "import", "../pictures", "--force")),
    "pipeline": Job(_without_results, ("recursight", "pipeline")),
    "dvc repro": Job(_without_results, ("dvc", "repro")),
    "track sync": Job(_no_runs, ("recursight", "track", "sync")),
    "register": Job(_other_winner, ("recursight", "register")),
    "promote": Job(_two_versions, ("recursight", "promote")),
    "rollback": Job(_two_versions, ("recursight", "rollback", "2")),
    "restore": Job(_nothing, ("recursight", "restore", "1")),
    "predict": Job(_nothing, ("recursight", "predict", "../pictures", "--out", "answers.parquet")),
    "doctor": Job(_nothing, ("recursight", "doctor", "--fix")),
}


class Commands:
    """Rounds of disturbed commands.

    Args:
        folder: for the projects.
        seed: of every random choice.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(f"commands {seed}")
        self.usual: dict[str, tuple[dict[str, Any], float]] = {}
        self.disks = _can_mount(folder)
        _draw_pictures(folder / "pictures")

    def round(self, number: int, name: str) -> tuple[str, list[str]]:
        """Disturbs a command once, for certain: if it was over too soon, it is given anew and disturbed earlier.

        Returns:
            What was done, and the faults found after the command was given again.
        """
        if name not in self.usual:
            with self._project(f"{name}-usual") as workspace:
                JOBS[name].before(workspace)
                began = time.monotonic()
                self._give(workspace, name)
                self.usual[name] = _state(workspace), time.monotonic() - began
        kind = self.random.choice([kind for kind in DISTURBANCES if kind != "disk" or self.disks])
        for attempt in range(5):
            after = self.random.uniform(0, 0.8 ** (attempt + 1) * self.usual[name][1])
            with self._project(f"{name}-{number}-{attempt}", small_disk=kind == "disk") as workspace:
                JOBS[name].before(workspace)
                what = self._disturb(workspace, name, kind, after)
                if what:
                    return what, self._faults_after_repetition(workspace, name)
        return f"no {kind} in five attempts", ["the command was always over before"]

    def _faults_after_repetition(self, workspace: Workspace, name: str) -> list[str]:
        try:
            self._give(workspace, name)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return [f"the same command failed: {' '.join(str(error).split())[-400:]}"]
        expected, root = self.usual[name][0], workspace.root
        found = _state(workspace)
        changed = [key for key in expected if found[key] != expected[key]]
        faults = [f"{key}: {found[key]!r}, not {expected[key]!r}" for key in changed]
        faults += [f"left: {path.relative_to(root)}" for path in half_files(root)]
        faults += [f"held: {path.relative_to(root)}" for path in held_locks(root)]
        return faults + [f"still runs: {' '.join(process.cmdline())[-80:]}" for process in processes_of(root)]

    def _give(self, workspace: Workspace, name: str) -> None:
        workspace.run(*JOBS[name].command, timeout_seconds=COMMAND_SECONDS)

    def _disturb(self, workspace: Workspace, name: str, kind: str, after: float) -> str:
        """What was done to the command; empty if it had ended before."""
        command = subprocess.Popen(
            JOBS[name].command,
            cwd=workspace.root,
            env=workspace.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(after)
        victims = processes_of(workspace.root)
        if command.poll() is not None or not victims:
            return ""
        if kind == "disk":
            done = "disk full"
            with _full(workspace.root.parent / "ballast"), suppress(subprocess.TimeoutExpired):
                command.wait(PAUSE_SECONDS)
        else:
            done = self._stop(self.random.choice(victims), kind)
        try:
            status = f"ended with {command.wait(COMMAND_SECONDS)}"
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
            status = "hung"
        return f"{done} after {after:.1f} s; {status}" if done else ""

    def _stop(self, victim: psutil.Process, kind: str) -> str:
        """Kills or pauses a process; its command line, or nothing if it had ended."""
        try:
            words = " ".join(word.rpartition("/")[2] for word in victim.cmdline()[1:])[:50].replace("|", " ")
            if kind == "kill":
                victim.kill()
            else:
                victim.suspend()
                time.sleep(PAUSE_SECONDS)
                victim.resume()
        except psutil.Error:
            return ""
        return f"{kind} `{words}`"

    @contextmanager
    def _project(self, name: str, small_disk: bool = False) -> Iterator[Workspace]:
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        if small_disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
        try:
            (folder / "pictures").symlink_to(self.folder / "pictures")
            workspace = Workspace(folder)
            workspace.change_params(**SMALL, retrain={"schedule": False})
            workspace.finish()
            workspace.commit("finished")
            yield workspace
        finally:
            for process in processes_of(folder / "project"):
                with suppress(psutil.Error):
                    process.kill()
            if small_disk:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _state(workspace: Workspace) -> dict[str, Any]:
    """What a command is for: data, weights, versions, aliases, ended runs."""
    root = workspace.root
    with sqlite3.connect(root / "mlflow.db") as database:
        asked = {
            "aliases": "SELECT alias, version FROM registered_model_aliases ORDER BY alias",
            "versions": "SELECT count(*) FROM model_versions",
            "runs": "SELECT status, lifecycle_stage, count(*) FROM runs WHERE lifecycle_stage = 'active' GROUP BY 1, 2",
        }
        state: dict[str, Any] = {key: database.execute(query).fetchall() for key, query in asked.items()}
    database.close()
    state["data"] = [line for line in (root / "data.dvc").read_text().splitlines() if "md5:" in line]
    state["weights"] = weights(root)
    state["answers"] = (root / "answers.parquet").exists()
    state["doctor"] = [
        finding["what"]
        for finding in _doctor(workspace)
        if finding["state"] == "fix" and finding["area"] != "disk"  # the disk of a round is small
    ]
    return state


def _doctor(workspace: Workspace) -> list[dict[str, Any]]:
    process = subprocess.run(
        ["recursight", "doctor", "--json"],
        cwd=workspace.root,
        env=workspace.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(process.stdout)
    return found


@contextmanager
def _full(ballast: Path) -> Iterator[None]:
    """Fills a disk, down to the last block."""
    with ballast.open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(block))
    try:
        yield
    finally:
        ballast.unlink()


def _can_mount(folder: Path) -> bool:
    """Whether disks of any size can be made here, which takes root."""
    tried = folder / "disk"
    tried.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tried)], capture_output=True, check=False).returncode:
        print("no full disks: mounting one takes root", flush=True)
        return False
    subprocess.run(["umount", str(tried)], check=True)
    return True


def _draw_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(0, 128, (8, 8), dtype=np.uint8) + 127 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
