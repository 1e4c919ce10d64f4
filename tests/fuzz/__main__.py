"""Malformed input for everything that reads what others wrote. `python -m tests.fuzz`, or `make fuzz`.

Each target runs in a process of its own, which is watched: a crash, an answer that takes a minute, memory without
bounds and any exception but a refusal are faults. The input of a fault is kept in tests/fuzz/corpus/, where the tests
read it again.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.workspace import ROOT

HANGS_AFTER_SECONDS = 60.0
MODULES = {"requests": "tests.fuzz.requests", "kernels": "tests.fuzz.kernels"}


def main() -> int:
    arguments = _arguments()
    names = arguments.only or [*TARGETS, *MODULES]
    seconds = 60 * arguments.minutes * arguments.jobs / len(names)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(_run, name, arguments.seed, seconds, Path(folder) / name) for name in names]
        faults = sum(run.result() for run in runs)
    print(f"{faults} faults; their input is in tests/fuzz/corpus/." if faults else "No faults.")
    return int(faults > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=4, help="in all (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the random input (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default: 2)")
    parser.add_argument(
        "--only", nargs="+", choices=[*TARGETS, *MODULES], metavar="TARGET", help="leave out the others"
    )
    return parser.parse_args()


def _run(name: str, seed: int, seconds: float, folder: Path) -> int:
    """Runs one target; returns how many faults it has."""
    folder.mkdir()
    module = [MODULES[name]] if name in MODULES else ["tests.fuzz.child", name]
    command = [sys.executable, "-m", *module, str(seed), str(seconds), str(folder)]
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=errors)
        hung = _watch(process, folder / "input")
    found = sorted((folder / "found").glob("*"))
    if (hung or process.returncode < 0) and (folder / "input").exists():
        content = (folder / "input").read_bytes()
        found.append(folder / sha256(content).hexdigest()[:12])
        found[-1].write_bytes(content)
    if hung or process.returncode:
        reason = f"no answer within {HANGS_AFTER_SECONDS:g} s" if hung else f"ended with status {process.returncode}"
        last = (folder / "errors").read_text(errors="replace")[-1500:]
        print(f"{name}: {reason}\n{last}", flush=True)
    for path in found:
        kept = ROOT / "tests" / "fuzz" / "corpus" / name / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    count = (folder / "count").read_text() if (folder / "count").exists() else "?"
    print(f"{name}: {count} inputs, {len(found)} faults", flush=True)
    return len(found) or int(hung or process.returncode != 0)


def _watch(process: "subprocess.Popen[bytes]", last: Path) -> bool:
    """Waits for the end; kills a process that works on one input for too long, and returns whether it had to."""
    while process.poll() is None:
        time.sleep(0.2)
        if last.exists() and time.time() - last.stat().st_mtime > HANGS_AFTER_SECONDS:
            process.kill()
            process.wait()
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
