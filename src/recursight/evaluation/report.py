"""The comparison as one HTML page: no request leaves it, so it opens anywhere; equal input gives equal bytes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from recursight.drawing import charts
from recursight.drawing.charts import Axis, Line, Point
from recursight.evaluation.compare import Comparison
from recursight.evaluation.table import difference, figure, p_value
from recursight.tasks import Section

SMALL = (250, 185)  # one of many gradient charts
NEGLIGIBLE = 1e-8  # share of the largest gradient norm below which a curve is left out of view


@dataclass(frozen=True)
class Evidence:
    """All that the report shows.

    Attributes:
        comparison: ranks, scores and tests.
        architectures: per candidate, in words; its order gives each candidate its colour.
        histories: per candidate, history.csv of all seeds with a leading column `seed`.
        gradients: per candidate, gradient_norms.csv of one seed; without rows for a network without states.
        sections: the task's part.
        examples: how many, per split.
        data_digest: of the store.
    """

    comparison: Comparison
    architectures: dict[str, str]
    histories: dict[str, pd.DataFrame]
    gradients: dict[str, pd.DataFrame]
    sections: Sequence[Section]
    examples: dict[str, int]
    data_digest: str

    @property
    def metric(self) -> dict[str, Any]:
        """The one that ranks."""
        return self.comparison.metrics[0]


def render(evidence: Evidence) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"p_value": p_value}
    template = resources.files("recursight.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    comparison = evidence.comparison
    colours = {name: index for index, name in enumerate(evidence.architectures)}
    rows = comparison.ranking
    others = rows[1:]
    context = {
        "comparison": comparison,
        "rows": rows,
        "winner": rows[0],
        "better": [row["candidate"] for row in others if row["verdict"] == "better on test"],
        "tied": [row["candidate"] for row in others if row["verdict"] == "tied"],
        "worse": [row["candidate"] for row in others if row["verdict"] == "worse"],
        "level": f"{100 * comparison.confidence:g}",
        "alpha": f"{1 - comparison.confidence:g}",
        "metric": evidence.metric,
        "others": comparison.metrics[1:],
        "unit": " %" if evidence.metric["share"] else "",
        "figure": lambda row, key, metric: figure(row[key], metric),
        "difference": lambda row: difference(row, evidence.metric).replace("-", "−"),
        "colours": {name: index % charts.COLOURS for name, index in colours.items()},
        "architectures": evidence.architectures,
        "intervals": _intervals(evidence, colours),
        "loss": _loss(evidence, colours),
        "curve": _metric_curves(evidence, colours),
        "costs": [
            _cost(evidence, colours, "parameters", "parameters"),
            _cost(evidence, colours, "latency_ms", f"milliseconds for one image ({rows[0]['latency_on']})"),
        ],
        "gradients": {row["candidate"]: _gradient(evidence, row["candidate"], colours) for row in rows},
        "sections": evidence.sections,
        "examples": evidence.examples,
        "data_digest": evidence.data_digest,
    }
    return environment.from_string(template).render(context) + "\n"


def _bounds(row: Mapping[str, Any], metric: Mapping[str, Any]) -> tuple[float, float, float]:
    """Of a metric on test: value, low and high."""
    key = f"test_{metric['name']}"
    return row[key], row[f"{key}_low"], row[f"{key}_high"]


def _intervals(evidence: Evidence, colours: dict[str, int]) -> dict[str, str]:
    """A forest plot, one bar per row of the table."""
    rows, metric = evidence.comparison.ranking, evidence.metric
    bounds = {row["candidate"]: _bounds(row, metric) for row in rows}
    axis = Axis(min(low for _, low, _ in bounds.values()), max(high for *_, high in bounds.values()), 6, 134)
    return {
        name: charts.interval_bar(
            value,
            low,
            high,
            axis=axis,
            mark=bounds[rows[0]["candidate"]][0],
            colour=colours[name],
            label=f"{figure(low, metric)} to {figure(high, metric)}{' %' * metric['share']}",
        )
        for name, (value, low, high) in bounds.items()
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


def _metric_curves(evidence: Evidence, colours: dict[str, int]) -> str:
    """From where the curves begin to differ: the first epochs would press the rest together. Empty if not recorded."""
    metric = evidence.metric
    column = f"validation_{metric['name']}"
    if not all(column in history for history in evidence.histories.values()):
        return ""
    lines = _curves(evidence, colours, column)
    values = _finite(lines) or [0.0, 1.0]
    low, high = float(np.quantile(values, 0.1)), max(values)
    if not metric["higher_is_better"]:
        low, high = min(values), float(np.quantile(values, 0.9))
    low, high = low - 0.1 * (high - low), high + 0.03 * (high - low) + 1e-3
    if metric["share"]:
        low, high = max(0.0, low), min(1.0, high)
    x, y = charts.plot_axes(_epochs(lines), (low, high), x_whole=True)
    title = f"validation {metric['title']}"
    label = f"{title.capitalize()} over epochs, one line per training"
    return charts.line_chart(lines, x=x, y=y, x_title="epoch", y_title=title, label=label, y_format=_format(metric))


def _format(metric: Mapping[str, Any]) -> charts.Format:
    return charts.percent if metric["share"] else charts.short


def _epochs(lines: Sequence[Line]) -> tuple[float, float]:
    return 1.0, max(2.0, *(float(line.xs[-1]) for line in lines))


def _cost(evidence: Evidence, colours: dict[str, int], column: str, title: str) -> str:
    metric = evidence.metric
    points = [
        Point(row["candidate"], colours[row["candidate"]], max(row[column], 1e-9), *_bounds(row, metric))
        for row in evidence.comparison.ranking
    ]
    xs = [point.x for point in points]
    x, y = charts.plot_axes(
        (min(xs) / 1.5, max(xs) * 1.5),
        (min(point.low for point in points), max(point.high for point in points)),
        x_logarithmic=True,
    )
    y_title = f"test {metric['title']}"
    label = f"{y_title.capitalize()} against {title}, with intervals"
    return charts.scatter(points, x=x, y=y, x_title=title, y_title=y_title, label=label, y_format=_format(metric))


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
