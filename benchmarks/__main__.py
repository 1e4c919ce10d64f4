"""`python -m benchmarks`: every contender on the same work, and a table.

Each contender is a process of its own. They take turns, round by round, so that what else the machine does falls on all
alike; the first round of each is not counted. Ratios are medians of the ratios within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.account import commit, machine
from benchmarks.cases import BATCH, CASES, SIDE, Case
from benchmarks.contender import Contender
from benchmarks.networks import ours
from recursight.models.kernels.operators import products

RESULTS = Path(__file__).parent / "results"


def gflop_per_image(case: Case) -> float:
    """Products of the recurrent layers alone; training counts the backward pass as twice the forward pass."""
    model = ours(case)
    (view,) = model.views(torch.zeros(1, SIDE, SIDE, 1))
    return products(model.stacks[0], view) * (1 if case.inference else 3) / 1e9


def measure(name: str, threads: int, rounds: int, keras: Path | None) -> list[dict[str, object]]:
    """Rows of the table, one for each contender of a case."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        contenders: list[Contender] = []
        for contender in ("gemm", *case.contenders):
            arguments = [name, contender, str(threads), folder]
            if contender.startswith("keras"):
                if keras is None:
                    continue
                command = [str(keras), str(Path(__file__).parent / "contend_keras.py"), *arguments]
            else:
                command = [sys.executable, "-m", "benchmarks.contend", *arguments]
            contenders.append(Contender.start(contender, command, threads))
        for round_ in range(rounds + 1):
            for contender in contenders:
                figure = contender.round()
                if round_:
                    contender.rounds.append(figure)
        for contender in contenders:
            contender.process.communicate()
    return rows(name, case, threads, contenders)


def rows(name: str, case: Case, threads: int, contenders: list[Contender]) -> list[dict[str, object]]:
    yardstick, first, *_ = contenders
    work = gflop_per_image(case)
    table: list[dict[str, object]] = []
    for contender in contenders[1:]:
        same_weights = not (contender.name == "torch" and case.scan == "pixels")
        if same_weights and not abs(contender.loss - first.loss) <= 1e-4:
            raise SystemExit(f"{name}: {contender.name} starts at loss {contender.loss}, ours at {first.loss}.")
        rates = [rate for rate, _ in contender.rounds]
        turns = list(zip(first.rounds, contender.rounds, yardstick.rounds, strict=True))
        shares = [theirs[0] * work / gemm[0] for _, theirs, gemm in turns]
        table.append(
            {
                "case": name,
                "load": os.getloadavg()[0],
                "threads": threads,
                "contender": contender.name,
                "images_per_second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "ours_to_this": statistics.median(mine[0] / theirs[0] for mine, theirs, _ in turns),
                "ours_to_this_by_processor_time": statistics.median(mine[1] / theirs[1] for mine, theirs, _ in turns),
                "share_of_gemm": statistics.median(shares) if same_weights else None,
                "gemm_gflops": statistics.median(gemm[0] for *_, gemm in turns),
                "initial_loss": contender.loss,
            }
        )
    return table


def markdown(table: list[dict[str, object]], account: dict[str, str]) -> str:
    lines = [
        "# Benchmarks",
        "",
        f"Batch {BATCH}, fp32, synthetic 28×28 images, Adam. Images a second, median over the rounds (lowest to",
        "highest). The ratio is ours to this contender, the median over rounds taken in turn. The share is of the",
        "machine's own rate for a 2048×2048 product by torch, counting products alone; the kernels can multiply",
        "faster. The ratio by processor time holds where other work shares the machine.",
        "",
        "`torch` is torch.nn under a DataLoader, for minGRU and LRU its GRU of the same width. `double-loop` is our",
        "cell in two Python loops. Both keep freed memory, as our kernels do. `keras` trains by one `fit` a round and",
        "answers by `predict`, `keras-function` by the same network as a compiled `tf.function`.",
        "",
        *(f"- {key}: {value}" for key, value in account.items()),
        "",
        "| case | threads | contender | images/s | spread | ours ÷ this | by processor time | share of GEMM | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        share = row["share_of_gemm"]
        lines.append(
            f"| {row['case']} | {row['threads']} | {row['contender']} | {row['images_per_second']:,.0f} "
            f"| {row['lowest']:,.0f} to {row['highest']:,.0f} | {row['ours_to_this']:.2f} "
            f"| {row['ours_to_this_by_processor_time']:.2f} "
            f"| {'' if share is None else f'{share:.0%}'} | {row['commit']} |"
        )
    return "\n".join(lines) + "\n"


def place(row: dict[str, object]) -> tuple[int, object, int]:
    """Where a row stands in the table."""
    case = CASES[str(row["case"])]
    return list(CASES).index(str(row["case"])), row["threads"], case.contenders.index(str(row["contender"]))


def own_keras() -> Path | None:
    """This Python, where `pip install .[bench]` has given it Keras."""
    return Path(sys.executable) if find_spec("keras") and find_spec("tensorflow") else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keras", type=Path, default=own_keras(), help="a Python that has Keras; default: this one")
    arguments = parser.parse_args()
    versions = "not measured: `pip install -e .[bench]` brings it"
    if arguments.keras:
        asking = (
            "from importlib.metadata import version; print(version('keras'), 'on TensorFlow', version('tensorflow'))"
        )
        versions = subprocess.run([arguments.keras, "-c", asking], capture_output=True, text=True, check=True).stdout
    print(f"Keras {versions.strip()}", flush=True)
    account = {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "keras": versions.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    recorded = RESULTS / "cpu.json"
    table = json.loads(recorded.read_text())["rows"] if recorded.is_file() else []
    for name in arguments.cases:
        for threads in arguments.threads:
            source = {"commit": account["commit"], "date": account["date"]}
            measured = [row | source for row in measure(name, threads, arguments.rounds, arguments.keras)]
            print(*(f"{row['contender']} {row['ours_to_this']:.2f}" for row in measured), flush=True)
            table = list({place(row): row for row in table + measured}.values())  # the newer row of two
            table.sort(key=place)
            account["load"] = f"{os.getloadavg()[0]:.1f} at the end"
            (RESULTS / "cpu.md").write_text(markdown(table, account), encoding="utf-8")
            recorded.write_text(json.dumps({**account, "rows": table}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
