"""What really killed processes leave is found and removed; what is alive is not touched."""

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

from recursight import processes
from recursight.executors import clone
from recursight.files import write_json
from recursight.layout import Layout
from recursight.operations import cleanup, flow_runs
from recursight.operations.cleanup import Leftover
from recursight.processes import ProcessIdentity
from recursight.tracking import runs

LIMIT_SECONDS = 300.0
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A project; whatever works in its folder at the end of a test, which may have failed, is killed."""
    (tmp_path / "params.yaml").write_text("candidates: {gru: {layer: gru}}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    yield Layout(tmp_path)
    for left in processes.find(lambda process: Path(process.cwd()).is_relative_to(tmp_path)):
        left.kill()


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
    from recursight.executors import clone
    claimed = clone.claim(Layout.find())
    claimed.__enter__()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
    claimed.__exit__(None, None, None)
"""


def child_of(flow: psutil.Process) -> psutil.Process:
    (child,) = flow.children()
    return child


def test_what_a_killed_flow_started_is_found_then_ended(layout: Layout) -> None:
    with process(FLOW, layout) as flow:
        child = child_of(psutil.Process(flow.pid))
        assert cleanup.on_this_machine(layout, clear=True) == []  # the flow lives
        kill(flow)
        found = cleanup.on_this_machine(layout, clear=False)
        assert [leftover.kind for leftover in found] == ["process"]
        assert found[0].what.startswith(f"{child.pid} (")
        assert child.is_running()
        assert cleanup.on_this_machine(layout, clear=True) == found
        assert not child.is_running()
        assert cleanup.on_this_machine(layout, clear=True) == []
        assert list(clone.folder(layout).iterdir()) == []


def test_a_flow_that_ends_leaves_no_sign(layout: Layout) -> None:
    with process(FLOW, layout) as flow:
        assert len(list(clone.folder(layout).iterdir())) == 1
        flow.communicate("")
    assert list(clone.folder(layout).iterdir()) == []


def test_flows_of_other_machines_and_other_projects_are_let_be(layout: Layout, tmp_path: Path) -> None:
    elsewhere = Layout(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (elsewhere.root / name).write_text("{}")
    process_elsewhere = ProcessIdentity("another-machine", 1, 1.0)
    write_json(clone.folder(layout) / "another-machine.1.json", asdict(process_elsewhere))
    with process(FLOW, elsewhere) as flow:
        child = child_of(psutil.Process(flow.pid))
        kill(flow)
        assert cleanup.on_this_machine(layout, clear=True) == []
        assert child.is_running()
        assert len(list(clone.folder(layout).iterdir())) == 1
        assert len(cleanup.on_this_machine(elsewhere, clear=True)) == 1


def test_the_process_of_a_flow_run_is_read_from_its_tag() -> None:
    own = ProcessIdentity.of()
    found = flow_runs.process_of(["nightly", flow_runs.tag(own)])
    assert found is not None
    assert found.is_alive
    earlier = flow_runs.process_of([flow_runs.tag(replace(own, started=own.started - 60))])
    assert earlier is not None
    assert earlier.is_gone
    assert flow_runs.process_of(["nightly", "process of the year"]) is None


HALF_DONE = """
    import sys
    from pathlib import Path
    from recursight import access
    from recursight.files import replacing
    names = ("artifacts/candidates/gru", ".recursight/tracking/pending/0123")
    begun = [replacing(Path(name)) for name in names]
    for each in begun:
        each.__enter__().mkdir()
    Path.replace = lambda *_: (print("half done", flush=True), sys.stdin.read())  # before the secret has its name
    access.write_secret(Path("prefect.toml"), "password")
"""


def test_half_written_files_go_when_their_writer_has_been_killed(layout: Layout) -> None:
    with process(HALF_DONE, layout) as writer:
        assert cleanup.on_this_machine(layout, clear=True) == []
        kill(writer)
        found = cleanup.on_this_machine(layout, clear=False)
        assert {leftover.kind for leftover in found} == {"file"}
        assert len(found) == 3
        assert cleanup.on_this_machine(layout, clear=True) == found
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
    assert len(cleanup.on_this_machine(layout, clear=True)) == 1
    assert (bundle / "weights").read_text() == "old"


TRAINING = """
    import sys
    from pathlib import Path
    from recursight.layout import Layout
    from recursight.executors.local import exclusive_lock
    layout = Layout.find()
    with exclusive_lock(layout, "train@gru"):
        path = layout.checkpoint("gru", 0).with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
        print(1, flush=True)
        sys.stdin.read()
"""


def test_notes_and_checkpoints_of_a_killed_training_go(layout: Layout) -> None:
    with process(TRAINING, layout) as training:
        assert cleanup.on_this_machine(layout, clear=True) == []
        kill(training)
        found = cleanup.on_this_machine(layout, clear=True)
    assert found == [
        Leftover("lock", f"train@gru, of process {training.pid}"),
        Leftover("file", ".recursight/checkpoints/gru/seed-0.partial"),
    ]
    assert cleanup.on_this_machine(layout, clear=True) == []


def test_a_training_that_has_lost_its_dvc_and_hangs_is_ended(layout: Layout) -> None:
    script = TRAINING.replace("from recursight.executors.local import exclusive_lock", LOST)
    with process(script, layout, DVC_STAGE="train@gru") as training:
        found = cleanup.orphans(layout, clear=False)
        assert [leftover.what.split()[0] for leftover in found] == [str(training.pid)]
        os.kill(training.pid, signal.SIGSTOP)  # deaf
        assert cleanup.orphans(layout, clear=True) == found
        assert not psutil.pid_exists(training.pid)


LOST = """from recursight.executors import local
    from recursight.executors.local import exclusive_lock
    local.exit_with_parent = lambda: None  # hangs before it sees that its dvc is gone"""


def test_a_killed_restoration_is_found_and_removed(layout: Layout) -> None:
    script = """
        import sys, tempfile
        from recursight.files import staging_prefix
        from recursight.layout import Layout
        restored = Layout.find().state / "restored"
        for version in "34":
            (restored / version / "src").mkdir(parents=True)
        tempfile.mkdtemp(prefix=staging_prefix("3"), dir=restored)
        print(1, flush=True)
        sys.stdin.read()
    """
    with process(script, layout) as restoring:
        assert cleanup.half_restores(layout, clear=True) == []
        kill(restoring)
    assert cleanup.on_this_machine(layout, clear=True) == [Leftover("restore", ".recursight/restored/3")]
    assert [path.name for path in (layout.state / "restored").iterdir()] == ["4"]
    assert cleanup.on_this_machine(layout, clear=True) == []


def test_a_half_written_dvc_lock_is_replaced_by_the_committed_one(layout: Layout) -> None:
    (layout.root / ".dvc" / "tmp").mkdir(parents=True)
    lock = layout.root / "dvc.lock"
    whole = "schema: '2.0'\nstages: {}\n"
    lock.write_text(whole)
    for command in (["init", "-q"], ["add", "dvc.lock"], [*IDENTITY, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=layout.root, check=True)
    assert cleanup.on_this_machine(layout, clear=True) == []
    for half in ("", "schema: '2.0'\nstages:\n  a: {cmd: 'x", "stages: {}\n"):
        lock.write_text(half)
        assert cleanup.on_this_machine(layout, clear=False) == [Leftover("file", "dvc.lock")]
        assert lock.read_text() == half
        assert cleanup.on_this_machine(layout, clear=True) == [Leftover("file", "dvc.lock")]
        assert lock.read_text() == whole
    script = """
        import fcntl, sys
        file = open(".dvc/tmp/lock", "a")
        fcntl.flock(file, fcntl.LOCK_EX)
        open("dvc.lock", "w").close()
        print(1, flush=True)
        sys.stdin.read()
    """
    with process(script, layout):  # as DVC while it writes
        assert cleanup.on_this_machine(layout, clear=True) == []
        assert lock.read_text() == ""


def test_mlflow_runs_of_killed_processes_end_and_those_of_running_ones_go_on(layout: Layout) -> None:
    from recursight.tracking import connect
    from recursight.tracking.connection import experiment_id

    client = connect(layout)
    experiment = experiment_id(client, layout, "recursight")
    with process("import sys; print(1, flush=True); sys.stdin.read()", layout) as training:
        tags = {runs.PROCESS: str(ProcessIdentity.of(training.pid))}
        dying = client.create_run(experiment, tags=tags, run_name="gru").info.run_id
        living = client.create_run(experiment, tags=runs.owner_tags(layout.root)).info.run_id
        assert cleanup.mlflow_runs(layout, clear=True) == []
        kill(training)
    found = cleanup.mlflow_runs(layout, clear=False)
    assert found == [Leftover("MLflow run", f"gru ({dying[:8]})")]
    assert client.get_run(dying).info.status == "RUNNING"
    assert cleanup.mlflow_runs(layout, clear=True) == found
    assert client.get_run(dying).info.status == "KILLED"
    assert client.get_run(living).info.status == "RUNNING"


def test_a_project_in_order_is_looked_through_in_no_time(layout: Layout) -> None:
    for name in range(20):
        for seed in range(5):
            layout.bundle(f"gru{name}", seed).mkdir(parents=True)
    with clone.claim(layout):
        started = time.process_time()
        assert cleanup.on_this_machine(layout, clear=True) == []
        assert time.process_time() - started < 0.1
