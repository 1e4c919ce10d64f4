"""The comparison as one HTML page: no request leaves it, so it opens anywhere; equal input gives equal bytes."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from recursight.evaluation import charts
from recursight.evaluation.charts import Axis, Line, Point
from recursight.evaluation.compare import Comparison
from recursight.evaluation.matrix import confusion_chart
from recursight.evaluation.table import certainty, p_value

SMALL = (250, 185)  # one of many gradient charts
NEGLIGIBLE = 1e-8  # share of the largest gradient norm below which a curve is left out of view


@dataclass(frozen=True)
class Mistake:
    """One image that the winner got wrong: uint8 H W C, the names, and how sure it was."""

    image: np.ndarray
    actual: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """All that the report shows.

    Attributes:
        comparison: ranks, scores and tests.
        architectures: per candidate, in words; its order gives each candidate its colour.
        histories: per candidate, history.csv of all seeds with a leading column `seed`.
        gradients: per candidate, gradient_norms.csv of one seed; without rows for a network without states.
        confusions: per candidate, test counts K × K, summed over seeds.
        classes: K names.
        images: how many, per split.
        mistakes: the winner's most confident ones.
        mistaken: how many mistakes there are.
        data_digest: of the store.
    """

    comparison: Comparison
    architectures: dict[str, str]
    histories: dict[str, pd.DataFrame]
    gradients: dict[str, pd.DataFrame]
    confusions: dict[str, np.ndarray]
    classes: list[str]
    images: dict[str, int]
    mistakes: list[Mistake]
    mistaken: int
    data_digest: str


def render(evidence: Evidence) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "p_value": p_value, "certainty": certainty}
    template = resources.files("recursight.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    comparison = evidence.comparison
    colours = {name: index for index, name in enumerate(evidence.architectures)}
    rows = comparison.ranking
    winner = rows[0]
    others = rows[1:]
    context = {
        "comparison": comparison,
        "rows": rows,
        "winner": winner,
        "better": [row["candidate"] for row in others if row["verdict"] == "better on test"],
        "tied": [row["candidate"] for row in others if row["verdict"] == "tied"],
        "worse": [row["candidate"] for row in others if row["verdict"] == "worse"],
        "level": f"{100 * comparison.confidence:g}",
        "alpha": f"{1 - comparison.confidence:g}",
        "metric": comparison.metric.replace("_", " ").replace("f1", "F1"),
        "colours": {name: index % charts.COLOURS for name, index in colours.items()},
        "architectures": evidence.architectures,
        "intervals": _intervals(rows, colours),
        "loss": _loss(evidence, colours),
        "accuracy": _accuracy(evidence, colours),
        "costs": [
            _cost(rows, colours, "parameters", "parameters"),
            _cost(rows, colours, "latency_ms", "milliseconds for one image"),
        ],
        "confusions": {row["candidate"]: _confusion(evidence, row["candidate"]) for row in rows},
        "gradients": {row["candidate"]: _gradient(evidence, row["candidate"], colours) for row in rows},
        "classes": _classes(evidence.confusions[comparison.winner], evidence.classes),
        "pairs": _pairs(evidence.confusions[comparison.winner], evidence.classes),
        "mistakes": [(_data_url(mistake.image), mistake) for mistake in evidence.mistakes],
        "mistaken": evidence.mistaken,
        "images": evidence.images,
        "class_count": len(evidence.classes),
        "data_digest": evidence.data_digest,
    }
    return environment.from_string(template).render(context) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _intervals(rows: list[dict[str, Any]], colours: dict[str, int]) -> dict[str, str]:
    """A forest plot, one bar per row of the table."""
    low, high = min(row["test_low"] for row in rows), max(row["test_high"] for row in rows)
    axis = Axis(low, high, 6, 134)
    return {
        row["candidate"]: charts.interval_bar(
            row["test_accuracy"],
            row["test_low"],
            row["test_high"],
            axis=axis,
            mark=rows[0]["test_accuracy"],
            colour=colours[row["candidate"]],
            label=f"{_percent(row['test_low'])} to {_percent(row['test_high'])} %",
        )
        for row in rows
    }


def _curves(evidence: Evidence, colours: dict[str, int], column: str) -> list[Line]:
    """One line per training, the best candidate last and so on top."""
    lines = []
    for row in reversed(evidence.comparison.ranking):
        name = row["candidate"]
        for seed, history in evidence.histories[name].groupby("seed"):
            style = "several" if row["seeds"] > 1 else ""
            title = f"{name}, seed {seed}"
            lines.append(Line(name, colours[name], list(history["epoch"]), list(history[column]), title, style))
    return lines


def _finite(lines: Iterable[Line]) -> list[float]:
    return [value for line in lines for value in line.ys if math.isfinite(value)]


def _loss(evidence: Evidence, colours: dict[str, int]) -> str:
    lines = _curves(evidence, colours, "validation_loss")
    values = [value for value in _finite(lines) if value > 0] or [1.0]
    x, y = charts.plot_axes(_epochs(lines), (min(values) * 0.93, max(values) * 1.05), x_whole=True, y_logarithmic=True)
    label = "Validation loss over epochs, one line per training"
    return charts.line_chart(lines, x=x, y=y, x_title="epoch", y_title="validation loss", label=label)


def _accuracy(evidence: Evidence, colours: dict[str, int]) -> str:
    """From where the curves begin to differ: the first epochs would press the rest together."""
    lines = _curves(evidence, colours, "validation_accuracy")
    values = _finite(lines) or [0.0, 1.0]
    low = float(np.quantile(values, 0.1))
    high = max(values)
    low, high = max(0.0, low - 0.1 * (high - low)), min(1.0, high + 0.03 * (high - low) + 1e-3)
    x, y = charts.plot_axes(_epochs(lines), (low, high), x_whole=True)
    label = "Validation accuracy over epochs, one line per training"
    return charts.line_chart(
        lines, x=x, y=y, x_title="epoch", y_title="validation accuracy", label=label, y_format=charts.percent
    )


def _epochs(lines: Sequence[Line]) -> tuple[float, float]:
    return 1.0, max(2.0, *(float(line.xs[-1]) for line in lines))


def _cost(rows: list[dict[str, Any]], colours: dict[str, int], column: str, title: str) -> str:
    points = [
        Point(
            row["candidate"],
            colours[row["candidate"]],
            max(row[column], 1e-9),
            row["test_accuracy"],
            row["test_low"],
            row["test_high"],
        )
        for row in rows
    ]
    xs = [point.x for point in points]
    x, y = charts.plot_axes(
        (min(xs) / 1.5, max(xs) * 1.5),
        (min(point.low for point in points), max(point.high for point in points)),
        x_logarithmic=True,
    )
    label = f"Test accuracy against {title}, with intervals"
    return charts.scatter(points, x=x, y=y, x_title=title, y_title="test accuracy", label=label)


def _confusion(evidence: Evidence, name: str) -> str:
    counts = evidence.confusions[name]
    wrong = int(counts.sum() - np.trace(counts))
    label = f"Confusion matrix of {name}: {wrong} of {int(counts.sum())} test images are misclassified"
    return confusion_chart(counts, evidence.classes, label=label)


def _gradient(evidence: Evidence, name: str, colours: dict[str, int]) -> dict[str, Any] | None:
    """The chart, and how much of the last step's gradient reaches the first; None without recurrent states."""
    norms = evidence.gradients[name]
    if norms.empty:
        return None
    lines = []
    for (layer, state), curve in norms.groupby(["layer", "state"], sort=False):
        backward = str(layer).endswith(".backward")
        depth = next((int(part) for part in str(layer).split(".") if part.isdigit()), 0)
        style = f"depth{min(depth, 3)} {'inner-state' if state != 'h' else ''} {'backward' if backward else ''}"
        lines.append(
            Line(name, colours[name], list(curve["step"]), list(curve["norm"]), f"{name} {layer}, {state}", style)
        )
    every = np.concatenate([frame["norm"].to_numpy(dtype=float) for frame in evidence.gradients.values()])
    every = every[np.isfinite(every) & (every > 0)]
    highest = float(every.max(initial=1e-12))
    lowest = max(float(every.min(initial=highest)), highest * NEGLIGIBLE)
    steps = (0, max(1, int(norms["step"].max())))
    x, y = charts.plot_axes(steps, (lowest / 1.3, highest * 1.3), x_whole=True, y_logarithmic=True, size=SMALL)
    label = f"Gradient norm over time steps of {name}, logarithmic"
    chart = charts.line_chart(lines, x=x, y=y, x_title="step", y_title="‖∂loss/∂state‖", label=label, size=SMALL)
    first, last = lines[0].ys[0], lines[0].ys[-1]
    return {"chart": chart, "reach": f"{first / last:.2g}" if last > 0 else None, "layer": norms["layer"].iloc[0]}


def _classes(counts: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, hardest first; None where they have no meaning."""
    hits, present, claimed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    rows = [
        {
            "class": name,
            "precision": share(hits[index], claimed[index]),
            "recall": share(hits[index], present[index]),
            "f1": share(2 * hits[index], present[index] + claimed[index]),
            "support": int(present[index]),
        }
        for index, name in enumerate(classes)
    ]
    key: Callable[[dict[str, Any]], float] = lambda row: 2.0 if row["f1"] is None else row["f1"]  # noqa: E731
    return sorted(rows, key=key)


def _pairs(counts: np.ndarray, classes: list[str]) -> list[tuple[str, str, int, float]]:
    """Confusions that happened more than once, most frequent first: actual, predicted, count, share of the actual."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong.ravel(), kind="stable")[:8]
    places = [divmod(int(place), len(counts)) for place in order if wrong.ravel()[place] > 1]
    return [
        (classes[row], classes[column], int(counts[row, column]), float(counts[row, column] / counts[row].sum()))
        for row, column in places
    ]


def _data_url(image: np.ndarray) -> str:
    """The pixels as a PNG within the page."""
    from PIL import Image

    from recursight.evaluation.pictures import drawable

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(drawable(image))).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
