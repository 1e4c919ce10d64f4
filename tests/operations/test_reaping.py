"""What really killed processes leave is found and cleared away; what lives is not touched."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from recursight.files import write_json
from recursight.layout import Layout
from recursight.operations import owners, reaping
from recursight.operations.reaping import Dead
from recursight.tracking.runs import Owner

LIMIT_SECONDS = 300.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_text("candidates: {gru: {layer: gru}}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return Layout(tmp_path)


@contextmanager
def process(script: str, layout: Layout, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has come to its first line of output; killed at the end, if not before."""
    started = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=layout.root,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert started.stdout
        assert started.stdout.readline()
        yield started
    finally:
        kill(started)


def kill(started: "subprocess.Popen[str]") -> None:
    """SIGKILL; what it started may go on."""
    started.kill()
    started.wait()
    for pipe in (started.stdin, started.stdout):
        if pipe:
            pipe.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


FLOW = """
    import os, subprocess, sys
    from recursight.layout import Layout
    from recursight.operations import owners
    owners.enlist(Layout.find())
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
"""


def child_of(flow: psutil.Process) -> psutil.Process:
    (child,) = flow.children()
    return child


def test_what_a_killed_flow_started_is_found_then_ended(layout: Layout) -> None:
    with process(FLOW, layout) as flow:
        child = child_of(psutil.Process(flow.pid))
        assert reaping.on_this_machine(layout, clear=True) == []  # the flow lives
        kill(flow)
        found = reaping.on_this_machine(layout, clear=False)
        assert [dead.kind for dead in found] == ["process"]
        assert found[0].what.startswith(f"{child.pid} (")
        assert child.is_running()
        assert reaping.on_this_machine(layout, clear=True) == found
        assert not child.is_running()
        assert reaping.on_this_machine(layout, clear=True) == []
        assert list(owners.folder(layout).iterdir()) == []


def test_a_flow_that_ends_leaves_no_sign(layout: Layout) -> None:
    with process(FLOW, layout) as flow:
        assert len(list(owners.folder(layout).iterdir())) == 1
        flow.communicate("")
    assert list(owners.folder(layout).iterdir()) == []


def test_flows_of_other_machines_and_other_projects_are_let_be(layout: Layout, tmp_path: Path) -> None:
    elsewhere = Layout(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (elsewhere.root / name).write_text("{}")
    owner = Owner("another-machine", 1, 1.0, str(layout.root))
    write_json(owners.folder(layout) / "another-machine.1.json", asdict(owner))
    with process(FLOW, elsewhere) as flow:
        child = child_of(psutil.Process(flow.pid))
        kill(flow)
        assert reaping.on_this_machine(layout, clear=True) == []
        assert child.is_running()
        assert len(list(owners.folder(layout).iterdir())) == 1
        assert len(reaping.on_this_machine(elsewhere, clear=True)) == 1


def test_an_owner_is_known_by_its_tag_again() -> None:
    owner = Owner.process(Path("/"))
    assert owners.of_tags(["nightly", owners.tag(owner)]) is not None
    assert not owners.of_tags([owners.tag(owner)]).is_gone  # type: ignore[union-attr]
    assert owners.of_tags([owners.tag(replace(owner, started=owner.started - 60))]).is_gone  # type: ignore[union-attr]
    assert owners.of_tags(["nightly", "process of the year"]) is None


HALF_DONE = """
    import sys
    from pathlib import Path
    from recursight import access
    from recursight.files import replacing
    names = ("artifacts/candidates/gru", ".recursight/tracking/pending/0123")
    begun = [replacing(Path(name)) for name in names]
    for each in begun:
        each.__enter__().mkdir()
    Path.replace = lambda *_: None  # it comes to its end before the secret has its name
    access.write_secret(Path("prefect.toml"), "password")
    print("half done", flush=True)
    sys.stdin.read()
"""


def test_half_written_files_go_when_their_writer_is_dead(layout: Layout) -> None:
    with process(HALF_DONE, layout) as writer:
        assert reaping.on_this_machine(layout, clear=True) == []
        kill(writer)
        found = reaping.on_this_machine(layout, clear=False)
        assert {dead.kind for dead in found} == {"file"}
        assert len(found) == 3
        assert reaping.on_this_machine(layout, clear=True) == found
    assert not list(layout.root.rglob(f".*.{writer.pid}*"))


def test_a_folder_that_was_moved_aside_comes_back(layout: Layout) -> None:
    bundle = layout.candidate("gru")
    bundle.mkdir(parents=True)
    (bundle / "weights").write_text("old")
    script = """
        import os, sys
        from pathlib import Path
        from recursight.files import replacing
        target = Path("artifacts/candidates/gru")
        begun = replacing(target)
        target.replace(begun.__enter__().parent / "replaced")
        print(1, flush=True)
        sys.stdin.read()
    """
    with process(script, layout) as writer:
        kill(writer)
    assert not bundle.exists()
    assert len(reaping.on_this_machine(layout, clear=True)) == 1
    assert (bundle / "weights").read_text() == "old"


TRAINING = """
    import sys
    from pathlib import Path
    from recursight.layout import Layout
    from recursight.stages.lifeline import alone
    layout = Layout.find()
    with alone(layout.lock("train@gru")):
        path = layout.checkpoint("gru", 0).with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
        print(1, flush=True)
        sys.stdin.read()
"""


def test_notes_and_checkpoints_of_a_killed_training_go(layout: Layout) -> None:
    with process(TRAINING, layout) as training:
        assert reaping.on_this_machine(layout, clear=True) == []
        kill(training)
        found = reaping.on_this_machine(layout, clear=True)
    assert found == [
        Dead("lock", f"train@gru, of process {training.pid}"),
        Dead("file", ".recursight/checkpoints/gru/seed-0.partial"),
    ]
    assert reaping.on_this_machine(layout, clear=True) == []


def test_a_training_that_has_lost_its_dvc_and_hangs_is_ended(layout: Layout) -> None:
    script = TRAINING.replace("from recursight.stages.lifeline import alone", LOST)
    with process(script, layout, DVC_STAGE="train@gru") as training:
        found = reaping.orphans(layout, clear=False)
        assert [dead.what.split()[0] for dead in found] == [str(training.pid)]
        os.kill(training.pid, signal.SIGSTOP)  # deaf
        assert reaping.orphans(layout, clear=True) == found
        assert not psutil.pid_exists(training.pid)


LOST = """from recursight.stages import lifeline
    from recursight.stages.lifeline import alone
    lifeline.tie_to_starters = lambda: None  # hangs before it sees that its dvc is gone"""


def test_an_import_that_was_killed_gives_data_back(layout: Layout) -> None:
    layout.data.mkdir()
    (layout.data / "images").write_text("precious")
    script = """
        import sys
        from recursight.data.versions import Workshop
        from recursight.layout import Layout
        layout = Layout.find()
        workshop = Workshop(layout)
        workshop.__enter__()
        layout.data.rename(workshop.previous)
        print(1, flush=True)
        sys.stdin.read()
    """
    with process(script, layout) as importing:
        assert reaping.half_imports(layout, clear=True) == []
        kill(importing)
    assert reaping.half_imports(layout, clear=True) == [Dead("import", ".recursight/import")]
    assert (layout.data / "images").read_text() == "precious"


def test_mlflow_runs_of_the_dead_end_and_those_of_the_living_go_on(layout: Layout) -> None:
    from recursight.tracking import connect
    from recursight.tracking.connection import experiment_id

    client = connect(layout)
    experiment = experiment_id(client, layout, "recursight")
    with process("import sys; print(1, flush=True); sys.stdin.read()", layout) as training:
        tags = Owner.process(layout.root, training.pid).tags
        dying = client.create_run(experiment, tags=tags, run_name="gru").info.run_id
        living = client.create_run(experiment, tags=Owner.process(layout.root).tags).info.run_id
        assert reaping.mlflow_runs(layout, clear=True) == []
        kill(training)
    found = reaping.mlflow_runs(layout, clear=False)
    assert found == [Dead("MLflow run", f"gru ({dying[:8]})")]
    assert client.get_run(dying).info.status == "RUNNING"
    assert reaping.mlflow_runs(layout, clear=True) == found
    assert client.get_run(dying).info.status == "KILLED"
    assert client.get_run(living).info.status == "RUNNING"


def test_a_project_in_order_is_looked_through_in_no_time(layout: Layout) -> None:
    for name in range(20):
        for seed in range(5):
            layout.bundle(f"gru{name}", seed).mkdir(parents=True)
    owners.enlist(layout)
    started = time.process_time()
    assert reaping.on_this_machine(layout, clear=True) == []
    assert time.process_time() - started < 0.1
