"""Error rate and power of the monitor: windows of MNIST's test images, unshifted and shifted.

    python -m benchmarks.drift --from FOLDER      (with mnist/ and fashion-mnist/ as published, IDX)

A GRU is prepared for, trained and evaluated by the stages themselves. Half of the test images, drawn anew for each
window, are the reference; the window is drawn from the other half. Writes the tables of docs/monitoring.md.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from scipy import ndimage

from benchmarks.account import commit, machine
from recursight.data.statistics import image_statistics
from recursight.data.store import Store, open_store
from recursight.evaluation.predict import Program, answers
from recursight.layout import Layout
from recursight.models.bundle import load_bundle
from recursight.monitoring.compare import compare
from recursight.params import Monitor, load
from recursight.stages import evaluate, prepare, train

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "monitoring.md"
OPENING, CLOSING = "<!-- measured -->", "<!-- end of measured -->"
SIZES = (200, 500, 2000)
CENTRES = ("centre_x", "centre_y")  # MNIST is centred to the pixel, so they give every turn and move away
PARAMS = {
    "train": {"epochs": 4, "threads": 1, "batch_size": 128},
    "candidates": {"gru": {"layer": "gru", "hidden": 64}},
}

Shift = Callable[[np.ndarray], np.ndarray]


def rotated(degrees: float) -> Shift:
    """Turned about the middle, against the clock, black where nothing was."""
    return lambda images: ndimage.rotate(images, degrees, axes=(1, 2), reshape=False, order=1)


def noisy(levels: float) -> Shift:
    def shift(images: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, levels, images.shape)
        return np.clip(images + noise, 0, 255).astype(np.uint8)

    return shift


SHIFTS: dict[str, Shift] = {
    "inverted": lambda images: 255 - images,
    "rotated 90°": rotated(90),
    "rotated 60°": rotated(60),
    "rotated 30°": rotated(30),
    "rotated 10°": rotated(10),
    "rotated 3°": rotated(3),
    "moved 2 pixels right": lambda images: ndimage.shift(images, (0, 0, 2, 0), order=0),
    "half as bright": lambda images: images // 2,
    "10 % darker": lambda images: (images * 0.9).astype(np.uint8),
    "3 % darker": lambda images: (images * 0.97).astype(np.uint8),
    "blurred (σ 0.7)": lambda images: ndimage.gaussian_filter(images, (0, 0.7, 0.7, 0)),
    "noise (σ 10 levels)": noisy(10),
    "noise (σ 1 level)": noisy(1),
}


@dataclass(frozen=True)
class Asked:
    """Images, as the monitor finds them in the log."""

    rows: pd.DataFrame

    def draw(self, count: int, generator: np.random.Generator, among: np.ndarray | None = None) -> pd.DataFrame:
        among = np.arange(len(self.rows)) if among is None else among
        return self.rows.iloc[generator.choice(among, count, replace=False)]


def alarms(
    usual: Asked, unusual: Asked, size: int, windows: int, *, paired: bool = True, without: tuple[str, ...] = ()
) -> tuple[float, float]:
    """Share of windows with an alarm; and the share there would be without the floor of the effect size.

    Args:
        usual: of which half is the reference.
        unusual: of which the windows are drawn.
        size: of a window.
        windows: how many.
        paired: whether row i of both is the same image, which must not be in reference and window.
        without: features that are left out.
    """
    generator, settings, found, by_chance_alone = np.random.default_rng(size), Monitor(), 0, 0
    kept = [name for name in usual.rows if name not in without]
    for _ in range(windows):
        order = generator.permutation(len(usual.rows))
        half = len(order) // 2
        window = unusual.draw(size, generator, order[half:] if paired else None)
        reference = usual.rows[kept].iloc[order[:half]]
        verdict = compare(reference, window, level=settings.level, psi_floor=settings.psi_floor)
        found += bool(verdict.drifted)
        by_chance_alone += any(feature.p_holm <= settings.level for feature in verdict.features)
    return found / windows, by_chance_alone / windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="with mnist/ and fashion-mnist/")
    parser.add_argument("--windows", type=int, default=1000, help="unshifted windows per size")
    parser.add_argument("--shifted", type=int, default=100, help="windows per shift and size")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        text = measure(Layout(Path(name)), arguments.folder, arguments.windows, arguments.shifted)
    text += f"\n\n{account(arguments.windows, arguments.shifted)}; {time.perf_counter() - started:.0f} s in all."
    print(text)
    write(text)


def measure(layout: Layout, folder: Path, windows: int, shifted: int) -> str:
    layout.params.write_text(yaml.safe_dump(PARAMS))
    layout.data.symlink_to((folder / "mnist").resolve())
    prepare.run(layout)
    train.run(layout, "gru", defer_tracking=True)
    evaluate.run(layout, "gru")
    store = open_store(layout.store)
    network, card = load_bundle(layout.bundle("gru", 0))
    task = load(layout.params).built_task
    program, device = Program(network, task), torch.device("cpu")

    def ask(images: np.ndarray) -> Asked:
        """As the log and the reference have it."""
        found = answers(program, images, np.arange(len(images)), batch_size=512, device=device)
        statistics = pd.DataFrame(image_statistics(np.ascontiguousarray(images)))
        return Asked(pd.concat([task.summary(found, card.vocabulary), statistics], axis=1))

    images = store.first_frames(store.indices("test"))
    usual = ask(images)
    lines = ["| unshifted windows of | alarms | without the floor of the PSI |", "|---|---|---|"]
    for size in SIZES:
        found, by_chance_alone = alarms(usual, usual, size, windows)
        lines.append(f"| {size:,} predictions | {found:.1%} | {by_chance_alone:.1%} |")
    others = {name: (ask(shift(images)), True) for name, shift in SHIFTS.items()}
    foreign = ask(fashion(folder / "fashion-mnist", layout)).rows
    others["Fashion-MNIST"] = (Asked(foreign), False)
    for share in (10, 5):
        few = foreign.iloc[: len(usual.rows) * share // (100 - share)]
        others[f"{share} % of Fashion-MNIST among the digits"] = (Asked(pd.concat([usual.rows, few])), False)
    low = np.flatnonzero(store.targets_of(store.indices("test"))["value"].astype(int) < 5)
    others["digits 0 to 4 only"] = (Asked(usual.rows.iloc[low]), False)
    others["validation split, no shift meant"] = (ask(store.first_frames(store.indices("validation"))), False)
    headings = [f"{size:,}" for size in SIZES] + [f"{SIZES[0]}, no centres", "strongest in (PSI)"]
    lines += ["", "| shift | " + " | ".join(headings) + " |", "|---|" + "---|" * len(headings)]
    for name, (other, paired) in others.items():
        found = [alarms(usual, other, size, shifted, paired=paired)[0] for size in SIZES]
        found.append(alarms(usual, other, SIZES[0], shifted, paired=paired, without=CENTRES)[0])
        shares = [f"{share:.0%}" for share in found]
        verdict = compare(usual.rows, other.rows, level=Monitor().level, psi_floor=Monitor().psi_floor)
        strongest = ", ".join(f"{feature.name} {feature.psi:.2f}" for feature in verdict.features[:3])
        lines.append(f"| {name} | {' | '.join(shares)} | {strongest} |")
    return "\n".join([*lines, "", cost(images, usual)])


def fashion(folder: Path, layout: Layout) -> np.ndarray:
    from recursight.data.prepare import prepare as prepare_store

    prepare_store(folder, layout.root / "fashion")
    store: Store = open_store(layout.root / "fashion")
    return store.first_frames(store.indices("test"))


def cost(images: np.ndarray, usual: Asked) -> str:
    start = time.process_time()
    image_statistics(images)
    statistics = (time.process_time() - start) / len(images)
    start = time.perf_counter()
    compare(usual.rows, usual.rows, level=0.01, psi_floor=0.1)
    comparison = time.perf_counter() - start
    return (
        f"The figures of an image take {1e6 * statistics:.1f} µs of processor time; the comparison of "
        f"{len(usual.rows):,} predictions with as many of the reference {1000 * comparison:.0f} ms."
    )


def account(windows: int, shifted: int) -> str:
    command = f"python -m benchmarks.drift --from FOLDER --windows {windows} --shifted {shifted}"
    return f"`{command}`, commit {commit()}, {machine()}, torch {torch.__version__}"


def write(text: str) -> None:
    """Between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(OPENING)
    PAGE.write_text(f"{before}{OPENING}\n\n{text}\n\n{CLOSING}{rest.split(CLOSING)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
