"""Chaos: commands that are disturbed at random moments, and are given once more. `python -m tests.chaos`.

In every second round a pipeline runs from nothing, in the terminal or by the worker, and one process dies: flow,
worker, Prefect's server, dvc, training or MLflow's server. Then `recursight up` and the same command are given again,
as a person would, and `aftermath.faults` looks at everything. In the other rounds it is the turn of each command
without servers, see `commands`.
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
from tests.chaos.commands import JOBS, Commands
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
    """What was done, and what was found after the command was given again."""

    number: int
    command: str
    disturbed: str
    faults: list[str]

    @property
    def row(self) -> str:
        verdict = "; ".join(self.faults) or "all well"
        return " | ".join(["", str(self.number), self.command, self.disturbed, verdict.replace("|", " "), ""]).strip()


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
            if done is not None:
                return done
        return Round(number, f"pipeline, {where}", f"no {kind} was there to be killed", ["no kill in five attempts"])

    def _round(self, number: int, where: str, kind: str, share: float) -> Round | None:
        experiment = f"chaos-{number}-{share:.2f}"
        self._from_nothing(experiment)
        wait_seconds = self.random.uniform(0, share * self.usual_seconds[where])
        began = time.monotonic()
        command = self._begin(where)
        try:
            time.sleep(wait_seconds)  # the random moment
            killed = victims.kill(self.platform, kind, lambda: command.poll() is not None)
            after = time.monotonic() - began
            first = self._end(command)
        finally:
            if command.poll() is None:
                command.kill()
                command.wait()
        again: list[str] = []
        try:
            self.platform.up()
            self.platform.workspace.run(*COMMANDS[where], timeout_seconds=SECOND_SECONDS)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            again.append(f"the same command failed: {' '.join(str(error).split())[-400:]}")
        if killed is None:
            return None
        disturbed = f"kill {kind} `{killed[0].replace('|', ' ')}` after {after:.1f} s; {first}"
        found = aftermath.faults(self.platform, experiment, self.expected)
        return Round(number, f"pipeline, {where}", disturbed, again + found)

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
        with suppress(AssertionError):  # the second one reports it
            self.platform.up()
        try:
            command.wait(FIRST_SECONDS)
        except subprocess.TimeoutExpired:
            command.terminate()
            try:
                command.wait(15)
            except subprocess.TimeoutExpired:
                return "hung, even after SIGTERM"
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
        f"`python -m tests.chaos --rounds {len(rounds)} --seed {seed}`: {well} of {len(rounds)} rounds passed. An "
        f"undisturbed pipeline takes {usual}.",
        "",
        "In each round one command is disturbed at a random moment, and then given again. `ended with` is the exit",
        "status of the disturbed command. The last column lists what was wrong after the second one.",
        f"{machine()}; {date.today()}; commit {commit()}.",
        "",
        "| round | command | disturbance | found |",
        "|---|---|---|---|",
        *(done.row for done in rounds),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--epochs", type=int, default=80, help="of the pipelines that are killed")
    options.add_argument("--only", choices=[*victims.KINDS, *JOBS], help="kill this process, or disturb this command")
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        Workspace.shared = Path(folder) / "shared"
        for name in ("shared", "platform", "commands"):
            (Path(folder) / name).mkdir()
        chaos = Chaos(Path(folder) / "platform", chosen.seed, chosen.epochs)
        commands = Commands(Path(folder) / "commands", chosen.seed)
        try:
            chaos.undisturbed()
            rounds: list[Round] = []
            for number in range(chosen.rounds):
                rounds.append(_round(chaos, commands, number, chosen.seed, chosen.only))
                print(rounds[-1].row, flush=True)
                chosen.out.write_text(report(chosen.seed, chaos, rounds), encoding="utf-8")
        finally:
            chaos.platform.workspace.run("recursight", "down")
    return int(any(done.faults for done in rounds))


def _round(chaos: Chaos, commands: Commands, number: int, seed: int, only: str | None) -> Round:
    turn = number // 2 + seed
    if only in JOBS or (only is None and number % 2):
        name = only or list(JOBS)[turn % len(JOBS)]
        return Round(number, name, *commands.round(number, name))
    kind = only or victims.KINDS[turn % len(victims.KINDS)]
    where = "worker" if kind == "worker" else chaos.random.choice(list(COMMANDS))
    return chaos.round(number, where, kind)


if __name__ == "__main__":
    sys.exit(main())
