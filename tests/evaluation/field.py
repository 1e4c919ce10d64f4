"""A field of candidates with known strengths, without training any."""

import numpy as np
import pandas as pd

from recursight.evaluation.compare import Comparison, Entrant, compare
from recursight.evaluation.metrics import scores
from recursight.evaluation.report import Evidence
from recursight.tasks import Contender, Tested
from recursight.tasks.classification import Classification

Strengths = dict[str, list[tuple[float, float]]]  # per seed, accuracy on validation and on test
TASK = Classification(top_k=1, calibration_bins=10)


def split(classes: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, count)


def entrant(
    name: str, strengths: list[tuple[float, float]], actual: dict[str, np.ndarray], classes: list[str]
) -> Entrant:
    """Right on exactly the given shares of the images, and equally sure of all answers."""
    metrics, rows = [], []
    for seed, strength in enumerate(strengths):
        generator = np.random.default_rng([seed, *name.encode()])
        scored = {}
        for part, share in zip(("validation", "test"), strength, strict=True):
            count = len(actual[part])
            wrong = generator.permutation(count) >= round(share * count)
            labels = np.where(wrong, (actual[part] + 1) % len(classes), actual[part])
            sure = np.full((count, len(classes)), 0.1 / (len(classes) - 1))
            sure[np.arange(count), labels] = 0.9
            scored[part] = TASK.score(sure, actual[part], classes)
        costs = {
            "parameters": 1000 + len(name),
            "train_seconds": 2.5,
            "images_per_second": 1e4,
            "latency_ms": 0.1 * len(name),
            "latency_on": "cpu, 1 thread",
            "throughput": 2e5,
        }
        metrics.append({part: scores(part_rows, TASK, 0.95) for part, part_rows in scored.items()} | costs)
        rows.append(scored)
    by_split = {part: [one[part] for one in rows] for part in ("validation", "test")}
    return Entrant(name, list(range(len(strengths))), metrics, by_split)


def contest(
    strengths: Strengths, *, metric: str = "accuracy", names: list[str] | None = None, count: int = 400
) -> tuple[Comparison, list[Entrant]]:
    names = names or [f"class {index}" for index in range(5)]
    actual = {"validation": split(len(names), count, 0), "test": split(len(names), count, 1)}
    entrants = [entrant(name, strength, actual, names) for name, strength in strengths.items()]
    settings = {"metric": TASK.metrics[metric], "samples": 300, "confidence": 0.95, "seed": 0}
    return compare(entrants, TASK.metrics, **settings), entrants


def evidence(strengths: Strengths, *, names: list[str] | None = None) -> Evidence:
    outcome, entrants = contest(strengths, names=names)
    epochs = np.arange(1, 13)
    histories = {
        entrant.name: pd.concat(
            pd.DataFrame(
                {
                    "seed": seed,
                    "epoch": epochs,
                    "validation_loss": np.exp(-epochs / (3 + seed)),
                    "validation_accuracy": 1 - np.exp(-epochs / (3 + seed)),
                }
            )
            for seed in entrant.seeds
        )
        for entrant in entrants
    }
    steps = np.arange(28)
    gradients = pd.concat(
        pd.DataFrame({"layer": layer, "state": state, "step": steps, "norm": scale * 0.8 ** (27 - steps)})
        for layer, state, scale in [("0.lstm", "h", 1.0), ("0.lstm", "c", 0.5), ("0.lstm.backward", "h", 0.2)]
    )
    without = pd.DataFrame(columns=["layer", "state", "step", "norm"])
    return Evidence(
        comparison=outcome,
        architectures={entrant.name: "rows → lstm 8 → last" for entrant in entrants},
        histories=histories,
        gradients={entrant.name: without if "plain" in entrant.name else gradients for entrant in entrants},
        sections=TASK.sections([contender(entrant, index) for index, entrant in enumerate(entrants)]),
        examples={"train": 2000, "validation": 400, "test": 400},
        data_digest="0123456789abcdef" * 4,
    )


def contender(entrant: Entrant, colour: int) -> Contender:
    def frames(chosen: np.ndarray) -> np.ndarray:
        return np.full((len(chosen), 8, 8, 3), 90, dtype=np.uint8)

    tested = [
        Tested(rows, list(rows["actual"].cat.categories), frames, confidence=0.95) for rows in entrant.rows["test"]
    ]
    return Contender(entrant.name, colour, tested)
