"""`promote` and `rollback`, killed at any line between decision and report, and given again."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from recursight.layout import Layout
from recursight.registry import CHALLENGER, CHAMPION, history, production_status
from recursight.registry.decisions import Decision, decide, experiment_name, settle
from recursight.registry.versions import version_number
from recursight.tracking import connect
from tests.processes import MARK, end, mark
from tests.projects import copy_whole
from tests.registry.test_promote import NAME, contested

__all__ = ["contested"]

WATCHED = {"decide", "_write", "_log_numbers", "_is_moved_elsewhere", "set_champion", "report", "settle"}
FILES = ("registry/decisions.py", "cli/gate.py")
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["recursight.cli", "recursight.registry", "mlflow.tracking.client", "torch.export"])


def _command(root: Path, words: list[str], output: Path, function: str | None, step: int) -> None:
    """Runs a command in this process, which kills itself at a line: the step-th of a function, or of all watched."""
    os.chdir(root)
    sys.stdout = output.open("w")
    seen = 0

    def at_line(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal seen
        if event == "line":
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
        return at_line

    def at_call(frame: FrameType, event: str, value: Any) -> Any:
        code = frame.f_code
        inside = code.co_filename.endswith(FILES) and code.co_name in WATCHED
        return at_line if inside and function in (None, code.co_name) else None

    from recursight.cli import app

    if step >= 0:
        sys.settrace(at_call)
    app(words, standalone_mode=False)
    sys.settrace(None)
    sys.stdout.flush()


def run(layout: Layout, words: list[str], function: str | None = None, step: int = -1) -> tuple[bool, str]:
    """Whether the command came to its end, and what it printed."""
    output = layout.root / "output.txt"
    process = context.Process(target=_command, args=(layout.root, words, output, function, step))
    process.start()
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL), output.read_text()
    return process.exitcode == 0, output.read_text()


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Ends it; it starts with the first process."""
    yield
    end(mark("module")[MARK])


@pytest.fixture(scope="module")
def origins(contested: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For `promote`, version 2 challenges version 1. For `rollback`, 1, 2 and 3 were champion in turn."""
    layout = copy_whole(contested, tmp_path_factory.mktemp("moved") / "project")
    client = connect(layout)
    client.copy_model_version(f"models:/{NAME}/1", NAME)
    for version in (2, 3):
        decide(client, layout, NAME, Decision("promote", version, "elman", version - 1, True, "for this test."))
    return {"promote": contested, "rollback": layout.root}


def check(layout: Layout, command: str) -> None:
    """It has been carried out once, and whole."""
    client = connect(layout)
    made = [decision for decision in history(client, NAME) if decision.kind == command and decision.promoted]
    assert version_number(client, NAME, CHAMPION) == 2
    assert version_number(client, NAME, CHALLENGER) is None
    assert len([decision for decision in made if decision.reason != "for this test."]) == 1
    status = production_status(layout)
    assert status.decision == made[0]
    assert status.remark == ""
    experiment = client.get_experiment_by_name(experiment_name(NAME)).experiment_id
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")


def kill_and_repeat(origin: Path, folder: Path, command: str, function: str | None, step: int) -> bool:
    """Whether the command was killed before its end; whatever happened, repeating it carries it out once."""
    layout = copy_whole(origin, folder)
    ended, first = run(layout, [command], function, step)
    client = connect(layout)
    if not ended and not (first and version_number(client, NAME, CHAMPION) == 2 and not _running(layout)):
        again, second = run(layout, [command])
        assert again
        assert "version 2 (elman)" in second
        assert "is champion now" in second
        assert "nothing to decide" not in second
    check(layout, command)
    shutil.rmtree(folder)
    return not ended


def _running(layout: Layout) -> bool:
    client = connect(layout)
    experiment = client.get_experiment_by_name(experiment_name(NAME)).experiment_id
    return bool(client.search_runs([experiment], "attributes.status = 'RUNNING'"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "function", "step"),
    [
        ("rollback", "_write", 0),  # before the decision is recorded
        ("rollback", "set_champion", 0),  # before the alias moves
        ("promote", "set_champion", 1),  # before the challenger loses its alias
        ("promote", "report", 0),
        ("rollback", "report", 0),
    ],
)
def test_a_killed_command_given_again_is_carried_out_once(origins, tmp_path, command, function, step):
    assert kill_and_repeat(origins[command], tmp_path / "project", command, function, step)


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_command_killed_at_any_line_is_carried_out_once(origins, tmp_path, command):
    step = 0
    while kill_and_repeat(origins[command], tmp_path / "project", command, None, step):
        step += 1
    assert step > 40, "lines between decision and report"


@pytest.mark.slow
def test_a_kill_while_a_killed_rollback_is_completed(origins, tmp_path):
    layout = copy_whole(origins["rollback"], tmp_path / "project")
    assert not run(layout, ["rollback"], "set_champion", 0)[0]
    assert not run(layout, ["rollback"], "report", 0)[0]
    _, printed = run(layout, ["rollback"])
    assert "completed an interrupted command" in printed
    assert "by rollback" in printed
    check(layout, "rollback")


@pytest.mark.slow
def test_a_killed_rollback_is_completed_by_promote_which_then_stops(origins, tmp_path):
    layout = copy_whole(origins["rollback"], tmp_path / "project")
    assert not run(layout, ["rollback"], "report", 0)[0]
    connect(layout).set_registered_model_alias(NAME, CHALLENGER, "3")
    _, printed = run(layout, ["promote"])
    assert "completed an interrupted command" in printed
    assert "nothing else was done" in printed
    assert settle(connect(layout), NAME) is None
    assert version_number(connect(layout), NAME, CHAMPION) == 2
