"""Builds the kernels with the machine's own compiler, once per source, compiler and processor.

A plain library of C functions, about five seconds of compiling: no headers of torch or Python are needed. What is built
is kept in the user's cache. A system lock keeps processes from building twice; it dies with its holder, and the result
appears in one rename, so a kill in the middle leaves neither a lock nor half a library.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from recursight.models.kernels.memory import is_chosen, keep_freed_memory

SOURCES = sorted([*Path(__file__).parent.glob("*.h"), *Path(__file__).parent.glob("*.cpp")])
SHARED = ["-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
# From best to plainest: what one compiler refuses, the next line does without.
FLAGS = [["-march=native", "-fopenmp"], ["-mcpu=native", "-fopenmp"], ["-fopenmp"], ["-march=native"], []]
SWITCH = "RECURSIGHT_KERNELS"

log = logging.getLogger("recursight")


@cache
def library() -> ctypes.CDLL | None:
    """The kernels; None, and one notice, where they cannot be had. `RECURSIGHT_KERNELS=0` does without them."""
    if os.environ.get(SWITCH) == "0":
        return None
    torch.get_num_threads()  # loads torch's OpenMP, which the library then shares
    try:
        kernels = ctypes.CDLL(str(build()))
    except (OSError, RuntimeError) as error:
        log.warning("Recurrent layers run without native kernels, correct but slower: %s", error)
        return None
    if not is_chosen():
        keep_freed_memory()
    return kernels


def build(sources: Sequence[Path] = SOURCES) -> Path:
    """The compiled library, from the cache if it is there.

    Args:
        sources: one .cpp file, and the headers that it includes.

    Raises:
        RuntimeError: saying why it could not be compiled.
        OSError: if the cache cannot be written.
    """
    compiler = _compiler()
    folder = cache_folder()
    source = next(path for path in sources if path.suffix == ".cpp")
    target = folder / f"{source.stem}-{_key(compiler, sources)}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(folder / "lock"):
            if not target.exists():
                _compile(compiler, source, target)
    return target


def cache_folder() -> Path:
    """Where built libraries are kept: `recursight` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recursight"


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no C++ compiler was found; install g++ or set CXX.")


def _key(compiler: str, sources: Sequence[Path]) -> str:
    """Differs where the library would: by source, flags, compiler and the processor that `native` stands for."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    cpuinfo = Path("/proc/cpuinfo")
    features = (
        next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
        if cpuinfo.exists()
        else platform.processor()
    )
    hashed = hashlib.sha256(repr((SHARED, FLAGS, compiler, version, platform.machine(), features)).encode())
    for source in sources:
        hashed.update(source.name.encode() + source.read_bytes())
    return hashed.hexdigest()[:16]


def _compile(compiler: str, source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as folder:
        built = Path(folder) / target.name
        for flags in FLAGS:
            command = [compiler, *SHARED, *flags, str(source), "-o", str(built)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                built.replace(target)
                return
    reason = (result.stderr.strip() or "no reason given").splitlines()[0]
    raise RuntimeError(f"{compiler} could not compile them ({reason}).")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the system ends the lock with its process, whatever ends that."""
    try:
        import fcntl
    except ImportError:  # Windows: several may build, and the last rename counts
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
