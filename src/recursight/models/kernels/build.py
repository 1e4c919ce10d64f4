"""Builds the kernels with the machine's own compiler, once per source, compiler and processor.

For machines without a compiler, `python -m recursight.models.kernels.build FOLDER` builds them in advance, for each
level of processors; RECURSIGHT_KERNELS_FOLDER names that folder where they are used.

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
import sys
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
# What is built in advance: for each level of a machine's processors, best first, the features that it requires.
LEVELS: dict[str, dict[str, set[str]]] = {
    "x86_64": {
        "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
        "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"},
    },
    "aarch64": {"armv8-a": set()},
}
SWITCH = "RECURSIGHT_KERNELS"
FOLDER = "RECURSIGHT_KERNELS_FOLDER"

log = logging.getLogger("recursight")


@cache
def library() -> ctypes.CDLL | None:
    """The kernels; None, and one notice, where they cannot be had. `RECURSIGHT_KERNELS=0` does without them."""
    if os.environ.get(SWITCH) == "0":
        return None
    torch.get_num_threads()  # loads torch's OpenMP, which the library then shares
    try:
        kernels = ctypes.CDLL(str(built_in_advance() or build()))
    except (OSError, RuntimeError) as error:
        log.warning("Recurrent layers run without native kernels, correct but slower: %s", error)
        return None
    if not is_chosen():
        keep_freed_memory()
    return kernels


def built_in_advance() -> Path | None:
    """The library for this processor in the folder that RECURSIGHT_KERNELS_FOLDER names; None if there is none."""
    if FOLDER not in os.environ:
        return None
    paths = _paths_in_advance(Path(os.environ[FOLDER]))
    features = set(_features().split())
    return next((path for path, level in paths.items() if _levels()[level] <= features and path.is_file()), None)


def build_in_advance(folder: Path) -> list[Path]:
    """Compiles the kernels for every level of this kind of processor, for machines without a compiler.

    Raises:
        RuntimeError: saying why they could not be compiled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = next(path for path in SOURCES if path.suffix == ".cpp")
    paths = _paths_in_advance(folder)
    for path, level in paths.items():
        _compile(_compiler(), source, path, [[f"-march={level}", "-fopenmp"]])
    return list(paths)


def _levels() -> dict[str, set[str]]:
    return LEVELS.get(platform.machine(), {})


def _paths_in_advance(folder: Path) -> dict[Path, str]:
    return {folder / f"kernels-{_digest(SHARED)}-{level}.so": level for level in _levels()}


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
                _compile(compiler, source, target, FLAGS)
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
    return _digest((SHARED, FLAGS, compiler, version, platform.machine(), _features()), sources)


def _digest(settings: object, sources: Sequence[Path] = SOURCES) -> str:
    hashed = hashlib.sha256(repr(settings).encode())
    for source in sources:
        hashed.update(source.name.encode() + source.read_bytes())
    return hashed.hexdigest()[:16]


def _features() -> str:
    """What the processor can do, as the system lists it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, source: Path, target: Path, choices: list[list[str]]) -> None:
    """Compiles with the first of some choices of flags that the compiler accepts."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as folder:
        built = Path(folder) / target.name
        for flags in choices:
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


if __name__ == "__main__":
    for built in build_in_advance(Path(sys.argv[1])):
        print(built)
