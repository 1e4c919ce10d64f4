"""Chaos: pipelines that lose one process each to SIGKILL, and are run once more. `python -m tests.chaos`.

Every round is a run from nothing, in the terminal or by the worker. At a random moment one process dies: flow, worker,
Prefect's server, dvc, training or MLflow's server. Then `recursight up` and the same command are given again, as a
person would, and `aftermath.faults` looks at everything.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.account import commit, machine

from tests.chaos import aftermath, victims
from tests.platforms import QUICK, Platform
from tests.workspace import ROOT, SMALL, Workspace

COMMANDS = {
    "terminal": ("recursight", "pipeline"),
    "worker": ("prefect", "deployment", "run", "pipeline/local", "--watch"),
}
FIRST_SECONDS = 120.0  # for the disturbed command to end by itself, once the servers are back
SECOND_SECONDS = 300.0
RESULTS = ROOT / "benchmarks" / "results" / "chaos.md"


@dataclass(frozen=True)
class Round:
    """What was done, and what came of it."""

    number: int
    where: str
    kind: str
    killed: str
    after_seconds: float
    first: str
    again_seconds: float
    faults: list[str]

    @property
    def row(self) -> str:
        verdict = "; ".join(self.faults) or "all well"
        killed = self.killed.replace("|", " ")
        return (
            f"| {self.number} | {self.where} | {self.kind} | `{killed}` | {self.after_seconds:.1f} | {self.first} "
            f"| {self.again_seconds:.1f} | {verdict} |"
        )


class Chaos:
    """A platform in which pipelines are run, killed and run again.

    Args:
        folder: where it is made.
        seed: of every random choice.
        epochs: of each training.
    """

    def __init__(self, folder: Path, seed: int, epochs: int) -> None:
        self.random = random.Random(seed)
        workspace = Workspace(folder)
        workspace.environment |= QUICK
        train = {"epochs": epochs, "patience": 0, "learning_rate": 0.003}
        small = SMALL | {"train": train, "candidates": {"gru": SMALL["candidates"]["gru"]}}
        workspace.change_params(**small, retrain={"schedule": False})
        workspace.run("dvc", "pull", "--quiet", "data.dvc")
        workspace.commit("few candidates")
        self.platform = Platform(workspace)
        self.platform.up()
        self.expected: dict[str, str] = {}
        self.usual_seconds: dict[str, float] = {}

    def undisturbed(self) -> None:
        """The weights, and how long each way takes."""
        for where, command in COMMANDS.items():
            self._from_nothing(f"undisturbed-{where}")
            began = time.monotonic()
            self.platform.workspace.run(*command, timeout_seconds=SECOND_SECONDS)
            self.usual_seconds[where] = time.monotonic() - began
            made = aftermath.weights(self.platform.workspace.root)
            self.expected = self.expected or made
            found = aftermath.faults(self.platform, f"undisturbed-{where}", self.expected)
            assert not found, found
            print(f"undisturbed, {where}: {self.usual_seconds[where]:.1f} s", flush=True)

    def round(self, number: int, where: str, kind: str) -> Round:
        """One kill, for certain: a run that was over too soon is done again."""
        for attempt in range(5):
            done = self._round(number, where, kind, 0.8**attempt)
            if done.killed:
                return done
        return done

    def _round(self, number: int, where: str, kind: str, share: float) -> Round:
        experiment = f"chaos-{number}-{share:.2f}"
        self._from_nothing(experiment)
        wait_seconds = self.random.uniform(0, share * self.usual_seconds[where])
        began = time.monotonic()
        command = self._begin(where)
        try:
            time.sleep(wait_seconds)  # the random moment
            told = victims.kill(self.platform, kind, lambda: command.poll() is not None)
            after = time.monotonic() - began
            first = self._end(command)
        finally:
            if command.poll() is None:
                command.kill()
                command.wait()
        began = time.monotonic()
        again: list[str] = []
        try:
            self.platform.up()
            self.platform.workspace.run(*COMMANDS[where], timeout_seconds=SECOND_SECONDS)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            again.append(f"the same command failed: {' '.join(str(error).split())[-400:]}")
        seconds = time.monotonic() - began
        found = aftermath.faults(self.platform, experiment, self.expected)
        return Round(number, where, kind, told[0] if told else "", after, first, seconds, again + found)

    def _begin(self, where: str) -> "subprocess.Popen[bytes]":
        workspace = self.platform.workspace
        log = (workspace.root.parent / "first.log").open("wb")
        with log:
            return subprocess.Popen(
                COMMANDS[where],
                cwd=workspace.root,
                env=workspace.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, command: "subprocess.Popen[bytes]") -> str:
        """Waits for the disturbed command; servers come back meanwhile, as somebody brings them."""
        with suppress(AssertionError):  # told by the second one
            self.platform.up()
        try:
            command.wait(FIRST_SECONDS)
        except subprocess.TimeoutExpired:
            command.terminate()
            try:
                command.wait(15)
            except subprocess.TimeoutExpired:
                return "hung, deaf to SIGTERM"
            return f"hung, ended by SIGTERM: {command.returncode}"
        return f"ended: {command.returncode}"

    def _from_nothing(self, experiment: str) -> None:
        """No results, no run cache, an experiment and a model of its own."""
        root = self.platform.workspace.root
        shutil.rmtree(root / "artifacts", ignore_errors=True)
        shutil.rmtree(root / ".dvc" / "cache" / "runs", ignore_errors=True)
        (root / "dvc.lock").unlink(missing_ok=True)
        self.platform.workspace.change_params(registry={"experiment": experiment, "model_name": experiment})


def report(seed: int, chaos: Chaos, rounds: list[Round]) -> str:
    well = sum(not done.faults for done in rounds)
    usual = ", ".join(f"{seconds:.0f} s ({where})" for where, seconds in chaos.usual_seconds.items())
    lines = [
        "# Chaos",
        "",
        f"`make chaos`, seed {seed}: {well} of {len(rounds)} rounds well. An undisturbed run takes {usual}.",
        "Each round is a run from nothing that loses one process to SIGKILL; then come `recursight up` and the same",
        f"command. {machine()}; {date.today()}; commit {commit()}.",
        "",
        "| round | where | kind | killed | after s | first command | again s | found |",
        "|---|---|---|---|---|---|---|---|",
        *(done.row for done in rounds),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--epochs", type=int, default=80)
    options.add_argument("--only", choices=victims.KINDS)
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder), chosen.seed, chosen.epochs)
        try:
            chaos.undisturbed()
            rounds: list[Round] = []
            for number in range(chosen.rounds):
                kind = chosen.only or victims.KINDS[(number + chosen.seed) % len(victims.KINDS)]
                where = "worker" if kind == "worker" else chaos.random.choice(list(COMMANDS))
                rounds.append(chaos.round(number, where, kind))
                print(rounds[-1].row, flush=True)
                chosen.out.write_text(report(chosen.seed, chaos, rounds), encoding="utf-8")
        finally:
            chaos.platform.workspace.run("recursight", "down")
    return int(any(done.faults for done in rounds))


if __name__ == "__main__":
    sys.exit(main())
