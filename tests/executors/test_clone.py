"""One flow at a time works in a clone; who comes second is refused by the name of the first."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from recursight.errors import InputError
from recursight.executors import clone, local
from recursight.layout import Layout

HOLD = """
    import sys
    from recursight.executors import clone
    from recursight.layout import Layout
    with clone.claim(Layout.find()), clone.claim(Layout.find()):  # a flow within a flow
        print("claimed", flush=True)
        sys.stdin.read()
"""
USED = r"this project is in use: process {pid} \(`{command}.*`\), at work since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return Layout(tmp_path)


@contextmanager
def process(command: list[str], layout: Layout) -> Iterator["subprocess.Popen[str]"]:
    """A process that has printed its first line; killed at the end with all of its group."""
    started = subprocess.Popen(
        command, cwd=layout.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert started.stdout
        assert started.stdout.readline()
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


def flow(layout: Layout) -> AbstractContextManager["subprocess.Popen[str]"]:
    return process([sys.executable, "-c", textwrap.dedent(HOLD)], layout)


def test_a_second_flow_is_refused_with_a_sentence_that_names_the_first(layout: Layout) -> None:
    with flow(layout) as first:
        refusal = pytest.raises(InputError, match=USED.format(pid=first.pid, command="-c"))
        with refusal as caught, clone.claim(layout):
            pass
        assert "\n" not in str(caught.value)
        assert clone.stale(layout) == {}
        first.communicate("")
    with clone.claim(layout):
        pass
    assert list(clone.folder(layout).iterdir()) == []


def test_a_killed_flow_blocks_nobody(layout: Layout) -> None:
    with flow(layout) as first:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert len(clone.stale(layout)) == 1
        with clone.claim(layout), clone.claim(layout):
            assert os.environ[clone.FLOW]
    assert clone.FLOW not in os.environ


def test_a_stage_that_no_flow_started_is_refused_while_one_works_here(layout: Layout) -> None:
    with flow(layout) as first:
        refusal = pytest.raises(InputError, match=USED.format(pid=first.pid, command="-c"))
        with refusal, local.exclusive_lock(layout, "train@gru"):
            pass
    with local.exclusive_lock(layout, "train@gru"):
        pass


@pytest.mark.parametrize("place", [".", "below"])
def test_a_flow_beside_a_dvc_repro_is_refused_with_a_sentence_that_names_it(layout: Layout, place: str) -> None:
    (layout.root / "below").mkdir()
    (layout.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"long": {"cmd": "echo begun; sleep 600"}}}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=layout.root, check=True)
    command = [sys.executable, "-m", "dvc", "repro", *(["../dvc.yaml"] if place == "below" else [])]
    with process(command, Layout(layout.root / place)) as repro:
        refusal = pytest.raises(InputError, match=USED.format(pid=repro.pid, command="-m dvc repro"))
        with refusal, clone.claim(layout):
            pass
        assert list(clone.folder(layout).glob("*")) == []
        with clone.claim(Layout(layout.root / "other")):  # another project is free
            pass
    with clone.claim(layout):
        pass
