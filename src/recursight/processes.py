"""Processes of this machine: which one it is, whether it lives, and how it is started, found and ended."""

import atexit
import gc
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

START_TOLERANCE_SECONDS = 2.0  # the system derives starts from its clock, which may be set
LARGEST_LOG_BYTES = 20_000_000
CPU_EXCEEDED = -signal.SIGPROF


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, and never a later one with the same number. `str` and `parse` suit tags and the environment.

    Attributes:
        host: name of its machine.
        pid: its number there.
        started: when, in seconds since 1970.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int | None = None) -> "ProcessIdentity":
        """Of a running process; by default, of this one."""
        process = psutil.Process(pid)
        return cls(socket.gethostname(), process.pid, process.create_time())

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity | None":
        """The reverse of `str`; None for any other text."""
        host, _, numbers = text.partition(":")
        pid, _, started = numbers.partition(":")
        try:
            return cls(host, int(pid), float(started))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started:.2f}"

    @property
    def name(self) -> str:
        """For a sentence, such as `process 123`."""
        return f"process {self.pid}"

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it runs on this machine."""
        if self.host != socket.gethostname():
            return None
        return _running(self.pid, lambda started: abs(started - self.started) < START_TOLERANCE_SECONDS)

    @property
    def is_alive(self) -> bool:
        return self.process is not None

    @property
    def is_gone(self) -> bool:
        """Whether it has surely ended; a process of another machine may be alive."""
        return self.host == socket.gethostname() and not self.is_alive


def is_alive_since(pid: int, moment: float) -> bool:
    """Whether the process that had a number at a moment (seconds since 1970) is alive, for records without a start."""
    return _running(pid, lambda started: started < moment + START_TOLERANCE_SECONDS) is not None


def _running(pid: int, has_started: Callable[[float], bool]) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        same = has_started(process.create_time()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:  # another user's: it may be the one
        return process
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _command_of(process: psutil.Process) -> str:
    """Its command in short, without the interpreter and without folders."""
    with suppress(psutil.Error):
        words = [Path(word).name if "/" in word else word for word in process.cmdline()]
        words = words[1:] if words and words[0].startswith("python") else words
        return " ".join(" ".join(words).split())[:80]
    return "?"


def describe(process: psutil.Process) -> str:
    """Number, command and start, for a sentence."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.create_time()))
    return f"process {process.pid} (`{_command_of(process)}`), at work since {since}"


def start(command: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> ProcessIdentity:
    """Starts a background process in its own session: Ctrl-C at the terminal does not reach it.

    Args:
        command: program and arguments.
        folder: in which it runs.
        environment: all of its environment.
        log: file to which its output is appended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return ProcessIdentity.of(process.pid)


def find(is_meant: Callable[[psutil.Process], bool]) -> Iterator[psutil.Process]:
    """Processes that meet a condition; those that may not be inspected are skipped."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if is_meant(process):
                yield process


def carrying(marks: Mapping[str, str]) -> list[psutil.Process]:
    """Processes started with all of these environment variables, except this one and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}

    def is_meant(process: psutil.Process) -> bool:
        if process.pid in own or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(marks.items() <= process.environ().items())

    return list(find(is_meant))


def with_descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def end(processes: Iterable[psutil.Process], patience_seconds: tuple[float, ...] = (6.0, 4.0)) -> None:
    """Ends processes: SIGTERM, once for each waiting time (a Prefect worker may need two), then SIGKILL."""
    left = list(processes)
    for seconds in patience_seconds:
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        _, left = psutil.wait_procs(left, timeout=seconds)
        if not left:
            return
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def listener_on(port: int) -> str:
    """The process that listens on a port of this machine, for a message."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f"process {connection.pid} (`{_command_of(psutil.Process(connection.pid))}`)"
    return "another program"


def reduce_garbage_collection() -> None:
    """Makes a process start and end up to a quarter faster: imports create many objects and no garbage."""
    gc.set_threshold(5_000)
    atexit.register(gc.freeze)  # Python would otherwise traverse all objects again at exit


def leave_stopping_to_parent() -> None:
    """Makes this process ignore Ctrl-C and SIGTERM: it ends when its parent closes the pipe, or is killed."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)


def end_after(seconds: int) -> None:
    """Has the operating system end this process after some seconds, even in the middle of work; 0 cancels that."""
    signal.alarm(seconds)


def end_after_cpu(seconds: float) -> None:
    """Like `end_after`, but in seconds of processor time, with exit status `CPU_EXCEEDED`."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


@contextmanager
def sigterm_is_success() -> Iterator[None]:
    """Ignores SIGTERM unless a handler is set within, so that a server that was asked to end exits with 0."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
