"""Work is done by one process at a time, and ends with the processes that asked for it."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from recursight.errors import InputError
from recursight.executors import local
from recursight.layout import Layout
from recursight.processes import ProcessIdentity


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@contextmanager
def python(script: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A process with pipes; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "", **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


HOLD = """
    import sys
    from pathlib import Path
    from recursight.executors.local import exclusive_lock
    from recursight.layout import Layout
    with exclusive_lock(Layout(Path({root!r})), "train@gru"):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_work_under_way_elsewhere_is_refused_by_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with python(HOLD.format(root=str(layout.root))) as holder:
        assert line_of(holder) == "held"
        monkeypatch.setattr(local, "ORPHAN_SECONDS", 0.1)
        refusal = pytest.raises(InputError, match=rf"train@gru: process {holder.pid} is doing the same")
        with refusal, local.exclusive_lock(layout, "train@gru"):
            pass
    with local.exclusive_lock(layout, "train@gru"):  # nothing is left of a killed holder
        pass


def test_a_successor_waits_for_an_orphan_to_end(layout: Layout) -> None:
    script = HOLD.format(root=str(layout.root))
    with python(script) as holder:
        assert line_of(holder) == "held"
        with python(script) as successor:
            holder.communicate()  # its input ends, and so does it
            assert line_of(successor) == "held"


STAGE = "import sys, time; from recursight.executors.local import exit_with_parent; exit_with_parent(); "
FLOW = """
    import os, subprocess, sys, time
    from recursight.executors.local import flow_mark
    stage = subprocess.Popen(
        [sys.executable, "-c", {stage!r}], env=os.environ | flow_mark(), start_new_session=True, {pipes}
    )
    print(stage.pid, flush=True)
    {then}
    print("ready", flush=True)
    time.sleep(600)
"""


def ends_with_flow(stage: str, pipes: str, then: str) -> None:
    with python(FLOW.format(stage=STAGE + stage, pipes=pipes, then=then)) as flow:
        process = psutil.Process(int(line_of(flow)))
        try:
            assert line_of(flow) == "ready"
            flow.kill()
            gone, _ = psutil.wait_procs([process], timeout=60)
            assert gone
        finally:
            if process.is_running():
                process.kill()


def test_ends_when_the_flow_that_asked_is_killed() -> None:
    ends_with_flow("print('begun', flush=True); time.sleep(600)", "stdout=subprocess.PIPE", "stage.stdout.readline()")


def test_ends_though_nobody_reads_any_more_what_it_prints() -> None:
    """The flow alone read the pipe. The stage's message cannot be written, and must not keep it from ending."""
    ends_with_flow(
        "print('begun', flush=True); time.sleep(600)",
        "stdout=subprocess.PIPE, stderr=subprocess.STDOUT",
        "stage.stdout.readline()",
    )


def test_ends_though_the_pipe_is_full(tmp_path: Path) -> None:
    """Somebody holds the pipe open without reading: a print waits for ever."""
    fill = """
import os
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(4096))
except BlockingIOError:
    os.set_blocking(2, True)
print("begun", flush=True)
time.sleep(600)
"""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    held_open = os.open(fifo, os.O_RDWR)
    try:
        ends_with_flow(
            fill, f"stdout=subprocess.PIPE, stderr=os.open({str(fifo)!r}, os.O_RDWR)", "stage.stdout.readline()"
        )
    finally:
        os.close(held_open)


def test_does_not_begin_for_a_flow_that_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mark = str(ProcessIdentity(ProcessIdentity.of().host, ended.pid, 1.0))
    with python(STAGE + "print('worked')", RECURSIGHT_FLOW_PROCESS=mark) as stage:
        assert stage.communicate()[0] == ""
        assert stage.returncode == 1


def test_an_identity_survives_its_text_and_knows_its_process() -> None:
    own = ProcessIdentity.of()
    read = ProcessIdentity.parse(str(own))
    assert read is not None
    assert read.is_alive
    assert not read.is_gone
    assert not ProcessIdentity(own.host, own.pid, own.started - 60).is_alive  # an earlier process of this number
    elsewhere = ProcessIdentity("elsewhere", own.pid, own.started)
    assert not elsewhere.is_alive
    assert not elsewhere.is_gone
    assert ProcessIdentity.parse("nonsense") is None
    assert ProcessIdentity.parse("") is None
