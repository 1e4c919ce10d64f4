"""An epoch of MNIST's size: our loop against the same network with a DataLoader and four workers.

    python -m benchmarks.epoch                (on a GPU if there is one)
    python -m benchmarks.epoch --device cpu

Batch size 512, fused Adam, on CUDA bfloat16 for both. Our loop keeps the images on the device and, on CUDA, replays the
step as a graph; our epochs also score 5,000 validation images. The two run in separate processes and in turn; the first
epoch is not counted. Writes benchmarks/results/epoch-DEVICE.md.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.account import commit, machine
from benchmarks.cases import CASES, LEARNING_RATE, draw
from benchmarks.contender import Contender
from benchmarks.networks import DoubleLoop, PlainTorch, ours
from recursight.tasks.classification import Classification
from recursight.training.augmentation import augment
from recursight.training.batches import Batches
from recursight.training.loop import fit
from recursight.training.optimizers import build_optimizer

ROOT = Path(__file__).parents[1]
IMAGES, VALIDATION, BATCH, WORKERS = 55_000, 5_000, 512, 4
AIMS = {"lstm": 0.15, "mdlstm": 0.5}  # seconds an epoch on an H100
TASK = Classification()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", action="append", choices=AIMS, help="one or several; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", choices=["ours", "torch"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments.contender, arguments.case[0], torch.device(arguments.device))
        return
    cases = arguments.case or (list(AIMS) if arguments.device != "cpu" else ["lstm"])
    rows = [row(case, arguments.device, arguments.rounds) for case in cases]
    target = ROOT / "benchmarks" / "results" / f"epoch-{torch.device(arguments.device).type}.md"
    target.write_text(page(rows, arguments.device))
    print(target.read_text())


def row(case: str, device: str, rounds: int) -> str:
    command = [sys.executable, "-m", "benchmarks.epoch", "--device", device, "--case", case, "--contender"]
    contenders = [Contender.start(name, [*command, name], torch.get_num_threads()) for name in ("ours", "torch")]
    found = [[contender.ask()[0] for contender in contenders] for _ in range(rounds + 1)][1:]
    for contender in contenders:
        contender.process.communicate()  # without another line to read it ends
    columns = list(zip(*found, strict=True))
    own, other = (statistics.median(seconds) for seconds in columns)
    spread = max(columns[0]) - min(columns[0])
    aim = f"{AIMS[case]:.2f}" if device != "cpu" else "–"
    return f"| {case} | {own:.3f} | {spread:.3f} | {other:.3f} | {other / own:.2f} | {aim} |"


def contend(name: str, case: str, device: torch.device) -> None:
    epochs = {"ours": our_epochs, "torch": torch_epochs}[name](case, device)
    print(float("nan"), flush=True)  # where others tell their loss before any training
    for _ in sys.stdin:
        print(next(epochs), flush=True)


def our_epochs(case: str, device: torch.device) -> Iterator[float]:
    images, labels = draw(IMAGES + VALIDATION)
    settings = {"batch_size": BATCH, "device": device, "memory_fraction": 0.5}
    rows = np.arange(len(images))
    train, validation = (
        Batches(images, part, np.ones_like(part), labels[part], **settings) for part in (rows[:IMAGES], rows[IMAGES:])
    )
    model = ours(CASES[case]).to(device)
    for epoch in fit(
        model,
        train,
        validation,
        optimizer=build_optimizer(
            "adam", model.parameters(), learning_rate=LEARNING_RATE, weight_decay=0.0, momentum=0.9
        ),
        learning_rate=lambda step: LEARNING_RATE,
        augment=lambda batch, generator: replace(
            batch,
            inputs=augment(batch.inputs, shift_pixels=0, rotate_degrees=0, flip=False, generator=generator),
        ),
        clip_norm=1.0,
        loss=TASK.loss,
        validation_loss=TASK.loss,
        curves=TASK.curves,
        seed=0,
        epochs=range(1, 1_000_000),
    ):
        yield epoch.seconds


def torch_epochs(case: str, device: torch.device) -> Iterator[float]:
    images, labels = draw(IMAGES)
    pairs = TensorDataset(torch.from_numpy(images).float() / 255, torch.from_numpy(labels))
    loader = DataLoader(
        pairs, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, pin_memory=device.type == "cuda"
    )
    plain = PlainTorch if case == "lstm" else DoubleLoop
    model = plain(CASES[case]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    while True:
        started, total = time.perf_counter(), 0.0
        for batch, targets in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(batch.to(device, non_blocking=True))
                loss = nn.functional.cross_entropy(logits, targets.to(device, non_blocking=True))
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()  # as tutorials do
        yield time.perf_counter() - started


def page(rows: list[str], device: str) -> str:
    where = machine() if device == "cpu" else f"{torch.cuda.get_device_name(device)}, {machine()}"
    about = (__doc__ or "").split("\n\n")[2].partition(" Writes")[0]
    head = [
        "# An epoch of MNIST's size",
        "",
        *about.splitlines(),
        "",
        f"{where}, torch {torch.__version__}, commit {commit()}, {datetime.now(UTC):%Y-%m-%d}:",
        f"`python -m benchmarks.epoch --device {device}`",
        "",
        "| case | ours, s | spread, s | DataLoader, s | ratio | target on an H100, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    main()
