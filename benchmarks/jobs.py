"""One training on all threads, or as many trainings as threads: `python -m benchmarks.jobs`.

Uses the trainings of `python -m benchmarks`. In each round, one runs alone on all threads, then several run in parallel
on one thread each; the images per second of all together are compared. `recursight pipeline` runs as many trainings in
parallel as the cores allow with `train.threads` each; the table shows which number is best.

Writes benchmarks/results/jobs.md.
"""

import argparse
import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.account import commit, machine
from benchmarks.cases import CASES
from benchmarks.contender import Contender

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "results" / "jobs.md"
HEAD = """# One training on {count} threads, or {count} on one thread each

Images per second of all trainings together, medians over {rounds} rounds, and the ratio within a round (lowest to
highest). {machine}, commit {commit}, {date}, load {load:.1f} at the end: `{command}`

| training | one, {count} threads | {count}, one thread each | ratio |
|---|---:|---:|---:|
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    count = os.cpu_count() or 1
    rows = []
    for name, case in CASES.items():
        if not case.inference:
            rows.append(row(name, *measure(name, count, arguments.rounds)))
            print(rows[-1], flush=True)
    head = HEAD.format(
        count=count,
        rounds=arguments.rounds,
        machine=machine(),
        commit=commit(),
        date=datetime.now(UTC).date().isoformat(),
        load=os.getloadavg()[0],
        command=" ".join(["python -m benchmarks.jobs", *sys.argv[1:]]),
    )
    PAGE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


def measure(name: str, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Images a second, round by round: of one training, and of `count` together."""
    with tempfile.TemporaryDirectory() as folder:
        alone = start(name, count, folder)
        together = [start(name, 1, folder) for _ in range(count)]
        figures: tuple[list[float], list[float]] = ([], [])
        with ThreadPoolExecutor(count) as pool:
            for round_ in range(rounds + 1):
                one, all_ = alone.round()[0], sum(rate for rate, _ in pool.map(Contender.round, together))
                if round_:  # the first warms up
                    figures[0].append(one)
                    figures[1].append(all_)
        for contender in (alone, *together):
            contender.process.communicate()
    return figures


def start(name: str, threads: int, folder: str) -> Contender:
    command = [sys.executable, "-m", "benchmarks.contend", name, "ours", str(threads), folder]
    return Contender.start(name, command, threads)


def row(name: str, alone: list[float], together: list[float]) -> str:
    ratios = [several / one for one, several in zip(alone, together, strict=True)]
    medians = f"{statistics.median(alone):,.0f} | {statistics.median(together):,.0f}"
    return f"| {name} | {medians} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"


if __name__ == "__main__":
    main()
