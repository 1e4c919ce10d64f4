"""The whole pipeline on real images, in a clone of this repository, measured: the tables of docs/results.md.

    python -m benchmarks.real_data mnist --from FOLDER     (or without --from, to download)
    python -m benchmarks.real_data fashion-mnist-longer --source fashion-mnist
    python -m benchmarks.real_data cifar10 --source cifar10.tar

The clone stays in .recursight/results/NAME, so that a second call goes on where the first was stopped.
"""

import argparse
import csv
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
import yaml

from benchmarks.account import commit, machine
from recursight.data.published import NAMES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
HEAD = """# Results

What the whole pipeline gives on real images, by the command named with each table. Accuracies repeat on one machine
with one torch and one commit, which `-dirty` follows because the preset and the data lie over it. A training's time is
its epochs times the median of them, of the seed that was disturbed least: so a study may be stopped and go on, and
share the machine for a while. What the columns mean is told in [candidates.md](candidates.md#comparing).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in (ROOT / "benchmarks" / "presets").glob("*.yaml")))
    parser.add_argument("--from", dest="folder", type=Path, help="where the published files are")
    parser.add_argument("--source", help="what to import instead of what has the preset's name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="stages at once; default: all processors")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the pipeline ends with it
    clone = prepare_clone(arguments.name)
    if not (clone / "imported").exists():
        source = arguments.source or arguments.name
        if source not in NAMES:
            source = str(Path(source).resolve())  # the import runs in the clone
        options = ["--from", str(arguments.folder.resolve())] if arguments.folder else []
        timed(clone, "data", "import", source, *options, "--force")
        (clone / "imported").touch()
    goes_on = (clone / "artifacts").exists()
    seconds = timed(clone, "pipeline", "--jobs", str(arguments.jobs))
    call = shlex.join([arguments.name, *(["--source", arguments.source] if arguments.source else [])])
    write_section(arguments.name, section(arguments.name, call, clone, arguments.jobs, None if goes_on else seconds))


def prepare_clone(name: str) -> Path:
    """A clone at the commit of the first call, with the preset as it is now laid over its params.yaml."""
    clone = ROOT / ".recursight" / "results" / name
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    show = ["git", "show", "HEAD:params.yaml"]
    params = yaml.safe_load(subprocess.run(show, cwd=clone, check=True, capture_output=True, text=True).stdout)
    (clone / "params.yaml").write_text(yaml.safe_dump(laid_over(params, name), sort_keys=False))
    return clone


def laid_over(params: dict[str, Any], name: str) -> dict[str, Any]:
    """Parameters with a preset's in their place; its candidates instead of theirs."""
    preset = yaml.safe_load((ROOT / "benchmarks" / "presets" / f"{name}.yaml").read_text())
    sections = {key: params[key] | values for key, values in preset.items() if isinstance(values, dict)}
    return params | preset | sections | {"candidates": preset["candidates"]}


def timed(clone: Path, *command: str) -> float:
    """Runs a recursight command of the clone's own code; its wall time in seconds."""
    started = time.perf_counter()
    environment = os.environ | {
        "PYTHONPATH": str(clone / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run([Path(sys.executable).parent / "recursight", *command], cwd=clone, env=environment, check=True)
    return time.perf_counter() - started


def section(name: str, call: str, clone: Path, jobs: int, seconds: float | None) -> str:
    """Markdown: what was run on what, and the ranking; the seconds of the pipeline where one call did it all."""
    summary = json.loads((clone / "artifacts" / "store" / "store.json").read_text())
    comparison = clone / "artifacts" / "comparison" / "ranking.csv"
    done = date.fromtimestamp(comparison.stat().st_mtime)
    with comparison.open() as file:
        ranking = list(csv.DictReader(file))
    jobs = min(jobs, len(ranking))  # the seeds of a candidate are trained one after the other
    splits = ", ".join(f"{split} {count:,}" for split, count in summary["splits"].items())
    params = yaml.safe_load((clone / "params.yaml").read_text())
    costs = {row["candidate"]: Cost.read(clone, row["candidate"]) for row in ranking}
    loops = sum(cost.seconds for cost in costs.values()) * len(params["seeds"])
    lines = [
        f"## {name}",
        "",
        f"{summary['count']:,} images with {summary['values']} labels: {splits}. "
        f"{machine()}, torch {torch.__version__}; {done}; commit {commit(clone)}; {ranking_setting(params)}.",
        f"The training loops take {loops / 3600:.1f} hours of one thread in all, {jobs} at a time. "
        + (
            whole(clone, seconds, jobs)
            if seconds
            else "The last call of the pipeline found part of it done, so its own time is not told."
        ),
        "",
        f"Made by `python -m benchmarks.real_data {call}`, with `benchmarks/presets/{name}.yaml` over `params.yaml`.",
        "",
        "| candidate | validation | test (95 % interval) | macro F1 | parameters "
        "| epochs | train s | images/s | verdict |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [row_of(row, costs[row["candidate"]]) for row in ranking]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Cost:
    """What a training of a candidate takes, by the seed that was disturbed least."""

    epochs: int
    seconds: float
    images_per_second: float

    @classmethod
    def read(cls, clone: Path, candidate: str) -> Self:
        found = []
        for history in (clone / "artifacts" / "candidates" / candidate).glob("seed-*/history.csv"):
            with history.open() as file:
                epochs = list(csv.DictReader(file))
            seconds = len(epochs) * median(float(epoch["seconds"]) for epoch in epochs)
            found.append(cls(len(epochs), seconds, median(float(epoch["images_per_second"]) for epoch in epochs)))
        return min(found, key=lambda cost: cost.seconds)


def whole(clone: Path, seconds: float, jobs: int) -> str:
    """What the pipeline took beside its loops, and its memory."""
    accounts = (clone / "artifacts" / "candidates").glob("*/seed-*/training.json")
    loops = sum(float(json.loads(path.read_text())["seconds"]) for path in accounts)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return (
        f"The pipeline took {seconds / 60:.1f} minutes, {seconds * jobs / loops:.2f} times its loops; "
        f"the largest of its processes {peak_mib:,.0f} MiB."
    )


def row_of(row: dict[str, str], cost: Cost) -> str:
    value = {key: float(text) for key, text in row.items() if text and key not in ("candidate", "verdict")}
    deviation = f" ± {value['test_deviation']:.2%}" if row["test_deviation"] else ""
    return (
        f"| {row['candidate']} | {value['validation_accuracy']:.2%} | {value['test_accuracy']:.2%}{deviation} "
        f"({value['test_accuracy_low']:.2%} to {value['test_accuracy_high']:.2%}) | {value['test_macro_f1']:.2%} | "
        f"{value['parameters']:,.0f} | {cost.epochs} | {cost.seconds:,.0f} | {cost.images_per_second:,.0f} "
        f"| {row['verdict']} |"
    )


def ranking_setting(params: dict[str, Any]) -> str:
    train, seeds = params["train"], len(params["seeds"])
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}, means and standard deviations over them; unless the preset says "
        f"otherwise batch {train['batch_size']}; {train['threads']} thread a training"
    )


def write_section(name: str, text: str) -> None:
    """Puts the section into docs/results.md, in the place of the one that it had."""
    _, *sections = RESULTS.read_text().split("\n## ")
    kept = {part.partition("\n")[0]: part for part in sections}
    kept[name] = text.removeprefix("## ")
    RESULTS.write_text("\n## ".join([HEAD, *(part.rstrip() + "\n" for part in kept.values())]))


if __name__ == "__main__":
    main()
