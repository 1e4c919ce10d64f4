"""The rule that decides whether a challenger takes the champion's place. It sees answers and says yes or no.

What it guards against, and why it is built so, stands in docs/gate.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recursight.evaluation import improvement
from recursight.params import Gate, Registry


@dataclass(frozen=True)
class Scored:
    """A version's answers for the test split.

    Attributes:
        version: in the registry.
        probabilities: N × K, columns in the order of the test split's classes.
        cost: parameters, or milliseconds for one image; what params.yaml's gate.cost says.
    """

    version: int
    probabilities: np.ndarray
    cost: float

    @property
    def predicted(self) -> np.ndarray:
        labels: np.ndarray = self.probabilities.argmax(axis=1)
        return labels


@dataclass(frozen=True)
class Verdict:
    """What the rule says.

    Attributes:
        promote: whether the challenger becomes champion.
        reason: why, or everything that speaks against it.
        numbers: behind it.
    """

    promote: bool
    reason: str
    numbers: dict[str, Any]


def level_of(gate: Gate, look: int) -> float:
    """The level for the n-th challenger of one champion.

    Shared, the levels are level/2, level/6, level/12, ... = level / (n (n + 1)), whose sum is the level: however many
    challengers come, the chance that any of those that are no better is promoted stays below it (Bonferroni's
    inequality, so it does not matter how they depend on each other; alpha spending after Foster and Stine, 2008).

    Args:
        gate: the section of params.yaml.
        look: n, from 1.
    """
    return gate.level / (look * (look + 1)) if gate.looks == "shared" else gate.level


def judge(
    gate: Gate,
    bars: Registry,
    classes: Sequence[str],
    actual: np.ndarray,
    challenger: Scored,
    champion: Scored | None,
    look: int = 1,
) -> Verdict:
    """Applies the rule.

    Args:
        gate: the section of params.yaml.
        bars: what any champion must reach.
        classes: names, in the order of their labels.
        actual: labels of the test split, N.
        challenger: what it answers.
        champion: what it answers; None if there is none, so that the bars alone decide.
        look: how many challengers of this champion have been judged, this one included.
    """
    numbers: dict[str, Any] = {"images": len(actual), "challenger": _figures(classes, actual, challenger, gate)}
    faults = _below(bars, numbers["challenger"])
    if champion is None:
        return Verdict(not faults, _sentence(faults) if faults else "the first to pass the bars of params.", numbers)
    numbers["champion"] = _figures(classes, actual, champion, gate)
    faults += _class_losses(gate, classes, actual, challenger, champion, numbers)
    evidence = _compare(gate, actual, challenger, champion, numbers)
    numbers |= {"level": level_of(gate, look), "look": look}
    test = f"p = {numbers['p_value']:.2g}, level {numbers['level']:.2g}"
    if numbers["p_value"] > numbers["level"]:
        what = "better" if gate.mode == "better" else f"not worse by {gate.margin:g}"
        faults.append(f"it is not shown to be {what} in {gate.metric}: {evidence} ({test})")
    faults += _too_dear(gate, challenger, champion) if gate.mode == "cheaper" else []
    if faults:
        return Verdict(False, _sentence(faults), numbers)
    return Verdict(True, _sentence([f"{evidence} ({test})", *_praise(gate, challenger, champion)]), numbers)


def recalls(actual: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and images per class, K each."""
    return np.bincount(actual[predicted == actual], minlength=classes), np.bincount(actual, minlength=classes)


def _figures(classes: Sequence[str], actual: np.ndarray, scored: Scored, gate: Gate) -> dict[str, Any]:
    hits, counts = recalls(actual, scored.predicted, len(classes))
    present = np.flatnonzero(counts)  # a class without test images has no recall
    worst = present[(hits[present] / counts[present]).argmin()]
    figures = {
        "version": scored.version,
        "accuracy": float(hits.sum() / len(actual)),
        "worst_class": classes[worst],
        "worst_recall": float(hits[worst] / counts[worst]),
        gate.cost: scored.cost,
    }
    return figures if gate.metric == "accuracy" else figures | {gate.metric: _score(gate.metric, actual, scored)}


def _below(bars: Registry, figures: dict[str, Any]) -> list[str]:
    faults = []
    if figures["accuracy"] < bars.minimum_accuracy:
        faults.append(
            f"test accuracy {figures['accuracy']:.2%} is below {bars.minimum_accuracy:.2%} (registry.minimum_accuracy)"
        )
    if figures["worst_recall"] < bars.minimum_class_recall:
        faults.append(
            f"the recall of class {figures['worst_class']!r}, {figures['worst_recall']:.2%}, is below "
            f"{bars.minimum_class_recall:.2%} (registry.minimum_class_recall)"
        )
    return faults


def _class_losses(
    gate: Gate,
    classes: Sequence[str],
    actual: np.ndarray,
    challenger: Scored,
    champion: Scored,
    numbers: dict[str, Any],
) -> list[str]:
    """Classes that lose more than the bound. One image may go in any class: of few, it is more than any bound."""
    hits, counts = recalls(actual, challenger.predicted, len(classes))
    before, _ = recalls(actual, champion.predicted, len(classes))
    lost = before - hits
    share = np.divide(lost, counts, out=np.full(len(classes), -np.inf), where=counts > 0)
    worst = int(share.argmax())
    numbers["largest_recall_loss"] = float(share[worst])
    numbers["largest_recall_loss_of"] = classes[worst]
    over = [index for index in np.argsort(-share) if share[index] > gate.maximum_recall_loss and lost[index] > 1]
    named = [
        f"{classes[index]!r} from {before[index] / counts[index]:.2%} to {hits[index] / counts[index]:.2%}"
        for index in over[:3]
    ]
    if not named:
        return []
    more = f" and {len(over) - 3} more" if len(over) > 3 else ""
    return [
        f"recall falls by more than {gate.maximum_recall_loss:g} (gate.maximum_recall_loss) in {', '.join(named)}{more}"
    ]


def _compare(gate: Gate, actual: np.ndarray, challenger: Scored, champion: Scored, numbers: dict[str, Any]) -> str:
    """Tests the metric, enters the numbers, and says in words what was seen."""
    margin = gate.margin if gate.mode == "cheaper" else 0.0
    right, right_before = challenger.predicted == actual, champion.predicted == actual
    gained, lost = int((right & ~right_before).sum()), int((right_before & ~right).sum())
    numbers |= {"gained": gained, "lost": lost}
    if gate.metric == "accuracy":
        numbers["gain"] = (gained - lost) / len(actual)
        numbers["p_value"] = (
            improvement.accuracy_not_worse(right_before, right, margin)
            if margin
            else improvement.mcnemar_better(right_before, right)
        )
        return (
            f"{right.mean():.2%} against {right_before.mean():.2%}, {gained} images gained and {lost} lost of "
            f"{len(actual):,}"
        )
    new, old = numbers["challenger"][gate.metric], numbers["champion"][gate.metric]
    numbers["gain"] = new - old if gate.metric == "macro_f1" else old - new
    resampled = _resamples(gate, actual, challenger, champion)
    numbers["p_value"] = improvement.bootstrap_better(numbers["gain"], resampled, margin)
    return f"{new:.4f} against {old:.4f} on {len(actual):,} images"


def _resamples(gate: Gate, actual: np.ndarray, challenger: Scored, champion: Scored) -> np.ndarray:
    drawing = {"samples": gate.bootstrap_samples, "seed": gate.seed}
    if gate.metric == "log_loss":
        spared = _losses(actual, champion.probabilities) - _losses(actual, challenger.probabilities)
        return improvement.mean_resamples(spared, **drawing)
    classes = challenger.probabilities.shape[1]
    return improvement.macro_f1_resamples(actual, champion.predicted, challenger.predicted, classes=classes, **drawing)


def _score(metric: str, actual: np.ndarray, scored: Scored) -> float:
    if metric == "log_loss":
        return float(_losses(actual, scored.probabilities).mean())
    from sklearn.metrics import f1_score

    return float(f1_score(actual, scored.predicted, average="macro"))


def _losses(actual: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Nats per image; a probability of zero counts as the smallest float32 that is not."""
    of_truth = probabilities[np.arange(len(actual)), actual].astype(np.float64)
    losses: np.ndarray = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny))
    return losses


def _too_dear(gate: Gate, challenger: Scored, champion: Scored) -> list[str]:
    if challenger.cost <= champion.cost * (1 - gate.saving):
        return []
    return [f"it is not cheaper by {gate.saving:.0%} (gate.saving): {_costs(gate, challenger, champion)}"]


def _praise(gate: Gate, challenger: Scored, champion: Scored) -> list[str]:
    return [f"cheaper: {_costs(gate, challenger, champion)}"] if gate.mode == "cheaper" else []


def _costs(gate: Gate, challenger: Scored, champion: Scored) -> str:
    if gate.cost == "parameters":
        return f"{challenger.cost:,.0f} parameters against {champion.cost:,.0f}"
    return f"{challenger.cost:.2f} ms an image against {champion.cost:.2f}"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts) + "."
