"""How often the gate errs and how often it sees: simulated challengers at the test size of MNIST.

    python -m benchmarks.gate_simulation

Writes docs/images/gate.svg and the tables of docs/gate.md; the same seed gives the same files.

The champion is right on 99.4 % of 10,000 images with MNIST's class sizes. Errors of two networks hang together, because
the same images are hard for both: each image has a difficulty, and given it, two networks err independently. The spread
of difficulties is such that two equally good networks disagree as often as the networks do that recursight trained on
MNIST: those of 99.1 to 99.5 % disagree on 0.5 to 1.0 % of the test images, most on about 0.65 %. Each challenger has a
true accuracy, and is judged on a test split of its own by the very rule that `recursight promote` applies.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recursight.params import Gate
from recursight.registry.gate import Scored, judge
from recursight.tasks import make_task

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gate.md"
PICTURE = ROOT / "docs" / "images" / "gate.svg"
OPENING, CLOSING = "<!-- simulation -->", "<!-- end of simulation -->"

CLASS_SIZES = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)  # of MNIST's test split
CLASSES = tuple("0123456789")
ACTUAL = np.repeat(np.arange(10), CLASS_SIZES)
CHAMPION = 0.994
SPREAD = 4.8  # of the difficulties, in logits: see `disagreement`
TASK = make_task("classification", {})
MINIMUMS = TASK.minimums
DIFFERENCES = (-0.004, -0.002, -0.001, -0.0005, 0.0, 0.001, 0.002, 0.003, 0.004)
RULES = {
    "better": Gate(),
    "better, 10th challenger": Gate(),
    "better, macro F1": Gate(metric="macro_f1", bootstrap_samples=100),
    "cheaper": Gate(mode="cheaper"),
}
LOOKS = {"better, 10th challenger": 10}
COSTS = {"cheaper": 0.5}
EVERY = {"better, macro F1": 4}  # the bootstrap is slow: every fourth challenger only
QUADRATURE = np.polynomial.hermite_e.hermegauss(160)


@dataclass(frozen=True)
class Rates:
    """Of the challengers with one true difference, per rule: the share that was promoted."""

    difference: float
    promoted: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--challengers", type=int, default=1000, help="per true difference")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rates = [simulate(difference, arguments.challengers, arguments.seed) for difference in DIFFERENCES]
    many = simulate_reigns(arguments.challengers, arguments.seed)
    text = section(rates, many, arguments.challengers)
    print(text)
    write(text)
    draw(rates)


def logit_of(accuracy: float) -> float:
    """Where the mean of the logits must lie for the share of right answers over all difficulties to be this."""
    points, weights = QUADRATURE
    low, high = -20.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        share = (weights / (1 + np.exp(-(middle + SPREAD * points)))).sum() / weights.sum()
        low, high = (middle, high) if share < accuracy else (low, middle)
    return low


def answers(logits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Predicted labels; a wrong one is any other class."""
    wrong = generator.random(len(ACTUAL)) > 1 / (1 + np.exp(-logits))
    other = (ACTUAL + generator.integers(1, 10, len(ACTUAL))) % 10
    return np.where(wrong, other, ACTUAL)


def scored(version: int, predicted: np.ndarray, cost: float = 1.0) -> Scored:
    return Scored(version, TASK.score(np.eye(10, dtype=np.float32)[predicted], ACTUAL, CLASSES), cost)


def pairs(difference: float, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels that champion and challenger predict, for one test split after another."""
    generator = np.random.default_rng([seed, round((difference + 1) * 1e6)])
    before, after = logit_of(CHAMPION), logit_of(CHAMPION + difference)
    for _ in range(count):
        difficulty = SPREAD * generator.standard_normal(len(ACTUAL))
        yield answers(before + difficulty, generator), answers(after + difficulty, generator)


def simulate(difference: float, count: int, seed: int) -> Rates:
    """Judges challengers whose accuracy truly differs by this."""
    promoted = dict.fromkeys(RULES, 0)
    for number, (champion, challenger) in enumerate(pairs(difference, count, seed)):
        for name, gate in RULES.items():
            if number % EVERY.get(name, 1):
                continue
            new = scored(2, challenger, COSTS.get(name, 1.0))
            promoted[name] += judge(gate, TASK, MINIMUMS, new, scored(1, champion), LOOKS.get(name, 1)).promote
    judged = {name: len(range(0, count, EVERY.get(name, 1))) for name in RULES}
    return Rates(difference, {name: number / judged[name] for name, number in promoted.items()})


def simulate_reigns(count: int, seed: int, length: int = 50) -> dict[str, float]:
    """Share of champions displaced by one of `length` challengers that are equally good, all on the same test split."""
    generator = np.random.default_rng([seed, length])
    logit = logit_of(CHAMPION)
    displaced = {"shared": 0, "single": 0}
    for _ in range(count):
        difficulty = SPREAD * generator.standard_normal(len(ACTUAL))
        champion = scored(1, answers(logit + difficulty, generator))
        lowest = dict.fromkeys(displaced, np.inf)
        for look in range(1, length + 1):
            challenger = scored(2, answers(logit + difficulty, generator))
            verdict = judge(Gate(), TASK, MINIMUMS, challenger, champion, look)
            p_value, level = verdict.numbers["p_value"], verdict.numbers["level"]
            lowest["shared"] = min(lowest["shared"], p_value / level)
            lowest["single"] = min(lowest["single"], p_value / Gate().level)
        for looks, ratio in lowest.items():
            displaced[looks] += ratio <= 1
    return {looks: number / count for looks, number in displaced.items()}


def disagreement(seed: int = 0) -> float:
    """Share of images on which exactly one of two equally good networks is right."""
    generator = np.random.default_rng(seed)
    difficulty = SPREAD * generator.standard_normal((100, len(ACTUAL)))
    logit = logit_of(CHAMPION)
    first, second = (generator.random(difficulty.shape) < 1 / (1 + np.exp(-(logit + difficulty))) for _ in range(2))
    return float((first != second).mean())


def section(rates: list[Rates], reigns: dict[str, float], count: int) -> str:
    """Markdown: the two tables."""
    lines = [
        f"Champion: {CHAMPION:.1%} right on {len(ACTUAL):,} images; an equally good network disagrees with it on "
        f"{disagreement():.2%} of them. {count:,} challengers for each row (macro F1: a quarter of them); promoted:",
        "",
        "| true difference in accuracy | " + " | ".join(RULES) + " |",
        "|---:|" + "---:|" * len(RULES),
    ]
    lines += [
        f"| {rate.difference * 100:+.2f} points | "
        + " | ".join(f"{share:.1%}" for share in rate.promoted.values())
        + " |"
        for rate in rates
    ]
    lines += [
        "",
        f"Fifty equally good challengers to one champion on one test split, {count:,} times: one took its place in "
        f"{reigns['shared']:.1%} with the shared level, in {reigns['single']:.1%} with `looks: single`.",
    ]
    return "\n".join(lines)


def write(text: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(OPENING)
    tail = rest.split(CLOSING)[1]
    PAGE.write_text(f"{head}{OPENING}\n{text}\n{CLOSING}{tail}", encoding="utf-8")


def draw(rates: list[Rates]) -> None:
    """The share promoted over the true difference, per rule."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "recursight", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(100 * DIFFERENCES[0], 0, color="#f3e6e6", linewidth=0)
        axes.axhline(1, color="#a33", linewidth=1, linestyle=":")
        axes.text(100 * DIFFERENCES[0], 1.8, " 1 %", color="#a33", va="bottom")
        for (name, style), colour in zip(
            zip(RULES, ("o-", "s--", "^-.", "d-"), strict=True),
            ("#2b6cb0", "#63a4d8", "#6b46c1", "#2f855a"),
            strict=True,
        ):
            shares = [100 * rate.promoted[name] for rate in rates]
            axes.plot([100 * rate.difference for rate in rates], shares, style, color=colour, label=name, markersize=4)
        axes.set_xlabel("true difference in accuracy, challenger minus champion (percentage points)")
        axes.set_ylabel("promoted (%)")
        axes.set_title(
            "Left of 0 the challenger is truly worse; mode cheaper accepts 0.2 points of that", loc="left", fontsize=9
        )
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(PICTURE, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
