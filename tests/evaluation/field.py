"""A field of candidates with known strengths, without training any."""

import numpy as np
import pandas as pd

from recursight.evaluation.compare import Comparison, Entrant, compare
from recursight.evaluation.report import Evidence, Mistake
from recursight.evaluation.scores import confusion, scores

Strengths = dict[str, list[tuple[float, float]]]  # per seed, accuracy on validation and on test


def split(classes: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, count)


def entrant(name: str, strengths: list[tuple[float, float]], actual: dict[str, np.ndarray], classes: int) -> Entrant:
    """Right on exactly the given shares of the images, and equally sure of all answers."""
    metrics, predicted = [], []
    for seed, strength in enumerate(strengths):
        generator = np.random.default_rng([seed, *name.encode()])
        answers = {}
        for part, share in zip(("validation", "test"), strength, strict=True):
            wrong = generator.permutation(len(actual[part])) >= round(share * len(actual[part]))
            answers[part] = np.where(wrong, (actual[part] + 1) % classes, actual[part])
        sure = {part: np.full((len(labels), classes), 0.1 / (classes - 1)) for part, labels in answers.items()}
        for part, labels in answers.items():
            sure[part][np.arange(len(labels)), labels] = 0.9
        figures = {
            part: scores(actual[part], sure[part], top_k=1, bins=10, confidence=0.95) for part in ("validation", "test")
        }
        costs = {
            "parameters": 1000 + len(name),
            "train_seconds": 2.5,
            "images_per_second": 1e4,
            "latency_ms": 0.1 * len(name),
            "throughput": 2e5,
        }
        metrics.append(figures | costs)
        predicted.append(answers)
    stacked = {part: np.stack([one[part] for one in predicted]) for part in ("validation", "test")}
    return Entrant(name, list(range(len(strengths))), metrics, stacked)


def contest(
    strengths: Strengths, *, metric: str = "accuracy", classes: int = 5, count: int = 400
) -> tuple[Comparison, list[Entrant], dict[str, np.ndarray]]:
    actual = {"validation": split(classes, count, 0), "test": split(classes, count, 1)}
    entrants = [entrant(name, strength, actual, classes) for name, strength in strengths.items()]
    outcome = compare(entrants, actual, classes=classes, metric=metric, samples=300, confidence=0.95, seed=0)
    return outcome, entrants, actual


def evidence(strengths: Strengths, *, classes: int = 5, names: list[str] | None = None) -> Evidence:
    outcome, entrants, actual = contest(strengths, classes=classes)
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
        confusions={
            entrant.name: sum(confusion(actual["test"], one, classes) for one in entrant.predicted["test"])
            for entrant in entrants
        },
        classes=names or [f"class {index}" for index in range(classes)],
        images={"train": 2000, "validation": 400, "test": 400},
        mistakes=[Mistake(np.full((8, 8, 3), 90, dtype=np.uint8), "class 0", "class 1", 0.9)] * 4,
        mistaken=9,
        data_digest="0123456789abcdef" * 4,
    )
