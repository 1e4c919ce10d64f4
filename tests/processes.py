"""What tests start ends with the test that fails, with the file, with the worker, with the run.

Everything that a test or a fixture starts inherits MARK, a path: run/worker/file/test/, as long as its scope is narrow.
So it is found whatever becomes of the test, also if it has lost its parent. A watcher beside the run, which waits for
the run's end, clears up even after SIGKILL.
"""

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

import psutil
import pytest

MARK = "RECURSIGHT_TEST"
DEPTHS = {"session": 2, "package": 2, "module": 3, "class": 3, "function": 4}
PATIENCE_SECONDS = float(
    os.environ.get("RECURSIGHT_TEST_PATIENCE", "30")
)  # for what ends by itself soon after a test: recorders, temporary servers

_place: list[str] = []  # run, worker, file, test
_failed: set[str] = set()
_peaks: list[int] = []  # of the workers, in bytes


def mark(scope: str = "function") -> dict[str, str]:
    """The environment of what the present test, or its file, or all tests of this worker start."""
    if len(_place) < DEPTHS[scope]:
        return {}  # outside of tests
    return {MARK: "".join(f"{part}/" for part in _place[: DEPTHS[scope]])}


def running(prefix: str) -> list[psutil.Process]:
    """Processes that a run, a worker, a file or a test has started, and that live."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(prefix: str, patience_seconds: float = 0.0) -> list[str]:
    """Kills what does not end by itself, and says what that was."""
    deadline = time.monotonic() + patience_seconds
    while (left := running(prefix)) and time.monotonic() < deadline:
        time.sleep(0.1)
    names = []
    while left:
        for process in left:
            with suppress(psutil.Error):
                names.append(f"{process.pid} {' '.join(process.cmdline())[:300]}")
                process.kill()
        psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
        left = running(prefix)  # what they have started meanwhile
    return names


def end_tree(process: "subprocess.Popen[Any]") -> None:
    """Kills a process and what it has started."""
    below = []
    with suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in below:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(below, timeout=PATIENCE_SECONDS)


@contextmanager
def _marking(scope: str) -> Iterator[None]:
    before = os.environ.get(MARK, "")
    os.environ |= mark(scope)
    try:
        yield
    finally:
        os.environ[MARK] = before


def peak_bytes() -> int:
    """The most memory that this process has ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


WATCHER = pytest.StashKey["subprocess.Popen[bytes]"]()


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
        watch = [sys.executable, __file__, f"{os.environ[MARK]}/"]
        config.stash[WATCHER] = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    resource_tracker.ensure_running()  # lives as long as this process, whichever test needs it first
    _place[:] = [os.environ[MARK], worker or "main"]


def pytest_unconfigure(config: pytest.Config) -> None:
    if watcher := config.stash.get(WATCHER, None):
        watcher.communicate()  # its input ends, and it ends what is left


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker that crashed leaves its processes."""
    end(f"{os.environ[MARK]}/{node.gateway.id}/")
    _peaks.append(getattr(node, "workeroutput", {}).get("peak_bytes", 0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["peak_bytes"] = peak_bytes()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"largest test process: {max(_peaks, default=peak_bytes()) / 2**30:.2f} GiB")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    _place[2:] = [item.nodeid.partition("::")[0], f"{time.time_ns()}"]
    result = yield
    if item.nodeid in _failed:
        end(mark()[MARK])
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    with _marking(fixturedef.scope):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    with _marking("function"):
        return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_of_a_file() -> Iterator[None]:
    """No process, and no memory that was freed."""
    prefix = mark("module")[MARK]
    yield
    failed = any(name.partition("::")[0] == _place[2] for name in _failed)
    left = end(prefix, 0.0 if failed else PATIENCE_SECONDS)
    with suppress(OSError, AttributeError):  # with the kernels, what is freed stays with the process
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    assert failed or not left, "these processes were left running, and have been killed:\n" + "\n".join(left)


if __name__ == "__main__":
    sys.stdin.read()
    end(sys.argv[1])
