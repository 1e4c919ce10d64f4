"""How cost grows: seconds and memory of an epoch against images, steps, hidden size and number of candidates.

    python -m benchmarks.growth

Writes docs/images/growth.svg and the table of docs/speed.md. Each point is the best of some epochs in a process of its
own, on one thread, with synthetic images in a file that is mapped into memory as the store is. Memory is what the
process alone holds (anonymous, at its highest), less what it held after a training of eight tiny images: neither what
is made once counts, nor pages of the file that the system may drop at any time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.account import commit, machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "speed.md"
PICTURE = ROOT / "docs" / "images" / "growth.svg"
OPENING, CLOSING = "<!-- growth -->", "<!-- end of growth -->"
EPOCHS = 3
USUAL = {"images": 2_000, "steps": 28, "hidden": 64, "candidates": 1, "streamed": 0}
AXES = {
    "images": (1_000, 4_000, 15_000, 60_000),
    "images, streamed": (1_000, 4_000, 15_000, 60_000),
    "steps": (28, 64, 128, 256, 512, 1_024),
    "hidden": (32, 64, 128, 256, 512),
    "candidates": (1, 2, 4, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(**json.loads(arguments.point))))
        return
    at = commit()
    found = {axis: [point(axis, size) for size in sizes] for axis, sizes in AXES.items()}
    draw(found)
    write(found, at)


def point(axis: str, size: int) -> tuple[float, float]:
    """Seconds and MiB of one point, from a process of its own."""
    name, _, streamed = axis.partition(", ")
    settings = USUAL | {name: size, "streamed": int(bool(streamed))}
    command = [sys.executable, "-m", "benchmarks.growth", "--point", json.dumps(settings)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{axis:<18}{size:>7,}  {told['seconds']:8.3f} s  {told['mib']:8.1f} MiB", flush=True)
    return told["seconds"], told["mib"]


def measure(images: int, steps: int, hidden: int, candidates: int, streamed: int) -> dict[str, float]:
    """The best epoch of a GRU over rows of 28 pixels; of several candidates, one after the other."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = drawn(Path(folder), images, steps)
        labels, rows = np.arange(images, dtype=np.int64) % 10, np.arange(images)
        trained(store[:8, :, :4], rows[:8], labels[:8], 8, 0, streamed)  # what is made once does not grow
        start = anonymous_mib()
        with peak() as highest:
            total = sum(trained(store, rows, labels, hidden, seed, streamed) for seed in range(candidates))
    return {"seconds": total, "mib": highest[0] - start}


def trained(store: np.ndarray, rows: np.ndarray, labels: np.ndarray, hidden: int, seed: int, streamed: int) -> float:
    """Seconds of the best epoch of a new network."""
    import torch

    from recursight.models.assembly import assemble
    from recursight.params import Candidate
    from recursight.tasks.classification import Classification
    from recursight.training.batches import Batches
    from recursight.training.loop import fit
    from recursight.training.optimizers import build_optimizer

    torch.manual_seed(seed)
    task = Classification()
    gru = Candidate(layer="gru", hidden=[hidden]).architecture
    model = assemble(gru, input_shape=store.shape[1:], outputs=10, mean=[0.5], std=[0.3])
    settings = {"device": torch.device("cpu"), "memory_fraction": 0.0 if streamed else 1.0}
    epochs = fit(
        model,
        Batches(store, rows, np.ones_like(rows), labels[rows], batch_size=128, **settings),
        Batches(store, rows[:128], np.ones_like(rows[:128]), labels[:128], batch_size=128, **settings),
        optimizer=build_optimizer("adam", model.parameters(), learning_rate=1e-3, weight_decay=0, momentum=0),
        learning_rate=lambda step: 1e-3,
        augment=lambda batch, generator: batch,
        clip_norm=1.0,
        loss=task.loss,
        validation_loss=task.loss,
        curves=task.curves,
        seed=seed,
        epochs=range(1, EPOCHS + 1),
    )
    return min(epoch.seconds for epoch in epochs)


def drawn(folder: Path, images: int, steps: int) -> np.ndarray:
    """Noise (N, steps, 28, 1), as bytes in a mapped file."""
    path = folder / "images.npy"
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, steps, 28, 1))
    random = np.random.default_rng(0)
    for start in range(0, images, 1_000):
        block = made[start : start + 1_000]
        block[:] = random.integers(0, 256, block.shape, dtype=np.uint8)
    del made
    return np.load(path, mmap_mode="r", allow_pickle=False)


def anonymous_mib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


@contextmanager
def peak() -> Iterator[list[float]]:
    """The highest of what the process holds meanwhile, looked at a hundred times a second."""
    highest, ended = [anonymous_mib()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            highest[0] = max(highest[0], anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Of the power law that fits best: the slope of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def draw(found: dict[str, list[tuple[float, float]]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "recursight"  # the same figures give the same file
    figure, panels = plt.subplots(2, len(AXES), figsize=(15, 6), sharey="row", layout="constrained")
    for column, (axis, sizes) in enumerate(AXES.items()):
        for row, (label, colour) in enumerate((("seconds", "tab:blue"), ("MiB", "tab:orange"))):
            costs = [cost[row] for cost in found[axis]]
            panel = panels[row][column]
            panel.loglog(sizes, costs, marker="o", color=colour)
            panel.set_xlabel(axis)
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
            panel.set_xticks([], minor=True)
            panel.set_title(f"exponent {exponent(sizes, costs):.2f}", fontsize=10)
            panel.grid(alpha=0.3)
            if not column:
                panel.set_ylabel(label)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def write(found: dict[str, list[tuple[float, float]]], at: str) -> None:
    lines = [
        OPENING,
        f"`python -m benchmarks.growth` at {at}, {machine()}, {time.strftime('%Y-%m-%d')}; a GRU over",
        "rows, batch size 128, one thread, 2,000 images of 28 rows, hidden size 64, except where the axis varies them.",
        "",
        "![Seconds and memory of an epoch against images, steps, hidden size, candidates](images/growth.svg)",
        "",
        "| axis | sizes | seconds per epoch | exponent | MiB | exponent |",
        "|---|---|---|---:|---|---:|",
    ]
    for axis, sizes in AXES.items():
        seconds, mib = zip(*found[axis], strict=True)
        lines.append(
            f"| {axis} | {' · '.join(f'{size:,}' for size in sizes)} | {' · '.join(f'{cost:.2f}' for cost in seconds)} "
            f"| {exponent(sizes, list(seconds)):.2f} | {' · '.join(f'{cost:.0f}' for cost in mib)} "
            f"| {exponent(sizes, list(mib)):.2f} |"
        )
    text = PAGE.read_text()
    before, after = text.partition(OPENING)[0], text.partition(CLOSING)[2]
    PAGE.write_text(before + "\n".join([*lines, CLOSING]) + after)


if __name__ == "__main__":
    main()
