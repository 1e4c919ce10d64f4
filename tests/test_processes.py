"""Tests that fail, run out of time or crash leave no process behind, and so do those that just forget one."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.workspace import ROOT

# The sleeper has lost its parent before the test ends.
SUITE = """
import os, subprocess, sys, time

def sleep():
    start = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", start], stdout=subprocess.DEVNULL, check=True)

def test_it():
    sleep()
    {ending}
"""
ENDINGS = {
    "fails": "assert 0",
    "hangs": "time.sleep(600)",
    "crashes": "os._exit(3)",
    "forgets": "pass",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_of_a_test_that(ending: str, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE.format(ending=ENDINGS[ending]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.processes", "-p", "no:cacheprovider"]
    own = {"PYTHONPATH": str(ROOT), "RECURSIGHT_TEST_PATIENCE": "0", "SUITE": str(tmp_path)}
    run = subprocess.Popen(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), "--timeout", "5", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = run.communicate()
    assert run.returncode != 0, output
    assert ("were left running" in output) == (ending == "forgets")
    deadline = time.monotonic() + 60  # of a crash, the watcher clears up
    while left := working_in(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def working_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("SUITE") == str(folder):
                found.append(process)
    return found
