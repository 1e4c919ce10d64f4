"""Work is done by one process at a time, and ends with those who asked for it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from recursight.errors import InputError
from recursight.stages import lifeline
from tests import processes


def python(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "", **processes.mark(), **environment},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


HOLD = """
    import sys
    from pathlib import Path
    from recursight.stages.lifeline import alone
    with alone(Path(sys.argv[1]) if len(sys.argv) > 1 else Path({path!r})):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_work_under_way_elsewhere_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "locks" / "train@gru.lock"
    holder = python(HOLD.format(path=str(lock)))
    assert said(holder) == "held"
    monkeypatch.setattr(lifeline, "ORPHAN_SECONDS", 0.1)
    with pytest.raises(InputError, match=rf"train@gru: another process \(pid {holder.pid}\)"), lifeline.alone(lock):
        pass
    holder.kill()
    holder.communicate()
    with lifeline.alone(lock):  # nothing is left of a killed holder
        pass


def test_a_successor_waits_for_an_orphan_to_end(tmp_path: Path) -> None:
    lock = tmp_path / "train@gru.lock"
    holder = python(HOLD.format(path=str(lock)))
    assert said(holder) == "held"
    successor = python(HOLD.format(path=str(lock)))
    holder.communicate()  # its input ends, and so does it
    assert said(successor) == "held"
    successor.communicate()


def test_ends_when_the_flow_that_asked_is_killed() -> None:
    begin = "from recursight.stages.lifeline import tie_to_starters; tie_to_starters()"
    work = f"import time; {begin}; print(1, flush=True); time.sleep(60)"
    flow = python(
        f"""
        import os, subprocess, sys, time
        from recursight.stages.lifeline import mark_flow
        environment = os.environ | mark_flow()
        stage = subprocess.Popen([sys.executable, "-c", {work!r}], env=environment, start_new_session=True)
        print(stage.pid, flush=True)
        time.sleep(60)
        """
    )
    stage = psutil.Process(int(said(flow)))
    assert said(flow) == "1"  # the stage has begun: it shares the flow's output
    flow.kill()
    gone, _ = psutil.wait_procs([stage], timeout=120)
    flow.communicate()
    assert gone


def test_does_not_begin_for_a_flow_that_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    stage = python(
        "from recursight.stages.lifeline import tie_to_starters as tie; tie(); print('worked')",
        RECURSIGHT_FLOW=f"{ended.pid}:1.0",
    )
    assert stage.communicate()[0] == ""
    assert stage.returncode == 1
