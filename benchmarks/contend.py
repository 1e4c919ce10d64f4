"""One contender in one process: `python -m benchmarks.contend CASE CONTENDER THREADS FOLDER`.

It prints the loss before any training, then runs one round for each line it reads and prints that round's images a
second, and a second of processor time. `gemm` is the yardstick: a product of two 2048×2048 matrices, in GFLOP/s.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cases import BATCH, CASES, LEARNING_RATE, SECONDS, Case, draw
from benchmarks.networks import DoubleLoop, PlainTorch, ours
from recursight.tasks.classification import Classification
from recursight.training.batches import Batches
from recursight.training.loop import fit
from recursight.training.optimizers import build_optimizer

TASK = Classification()


def gemm() -> float:
    a, b = torch.rand(2, 2048, 2048)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best / 1e9


def ours_training(case: Case, model: nn.Module) -> Callable[[], float]:
    """Through the loop of `recursight train`."""
    images, labels = draw(case.images)
    rows = np.arange(case.images)
    settings = {"batch_size": BATCH, "device": torch.device("cpu"), "memory_fraction": 0.5}
    train = Batches(images, rows, np.ones_like(rows), labels, **settings)
    validation = Batches(images, rows[:1], np.ones_like(rows[:1]), labels[:1], **settings)  # the others score nothing
    epochs = fit(
        model,
        train,
        validation,
        optimizer=build_optimizer("adam", model.parameters(), learning_rate=LEARNING_RATE, weight_decay=0, momentum=0),
        learning_rate=lambda step: LEARNING_RATE,
        augment=lambda batch, generator: batch,
        clip_norm=0,
        loss=TASK.loss,
        validation_loss=TASK.loss,
        curves=TASK.curves,
        seed=0,
        epochs=range(1, 1_000_000),
    )
    return lambda: next(epochs).images_per_second


def torch_training(case: Case, model: nn.Module) -> Callable[[], float]:
    """The loop of every tutorial."""
    images, labels = draw(case.images)
    pairs = TensorDataset(torch.from_numpy(images).float() / 255, torch.from_numpy(labels))
    loader = DataLoader(pairs, batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)

    def round_() -> float:
        started = time.perf_counter()
        for batch, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), targets).backward()
            optimizer.step()
        return case.images / (time.perf_counter() - started)

    return round_


def inference(case: Case, model: nn.Module) -> Callable[[], float]:
    images = torch.from_numpy(draw(case.inference)[0]).float() / 255
    model.eval()

    @torch.inference_mode()
    def round_() -> float:
        started = time.perf_counter()
        for _ in range(case.images // case.inference):
            model(images)
        return case.images / (time.perf_counter() - started)

    return round_


def main(name: str, contender: str, threads: str, folder: str) -> None:
    torch.set_num_threads(int(threads))
    case = CASES[name]
    if contender == "gemm":
        loss, round_ = float("nan"), gemm
    else:
        model = {"ours": ours, "torch": PlainTorch, "double-loop": DoubleLoop}[contender](case)
        images, labels = draw(BATCH)
        with torch.no_grad():
            logits = model(torch.from_numpy(images).float() / 255)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
        if contender == "ours":
            weights = {key: value.numpy() for key, value in model.state_dict().items()}
            np.savez(Path(folder) / f"{name}.npz", **weights)
        training = ours_training if contender == "ours" else torch_training
        round_ = (inference if case.inference else training)(case, model)
    print(loss, flush=True)
    for _ in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        rates = [round_()]
        while time.perf_counter() - started < SECONDS:
            rates.append(round_())
        used = time.process_time() - used
        print(statistics.harmonic_mean(rates), case.images * len(rates) / used, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
