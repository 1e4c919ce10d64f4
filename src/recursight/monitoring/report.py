"""A drift check as one HTML page: it loads nothing, so it opens anywhere; equal input gives equal bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from recursight.drawing import charts
from recursight.drawing.charts import Line
from recursight.drawing.svg import svg
from recursight.monitoring.compare import CHI_SQUARED, Drift, Feature

SIZE = (300, 190)
BINS = 40
MOST_CATEGORIES = 20
ROW = 20  # height of a category in pixels
EXPLAINED = {
    "brightness": "mean of the pixels, 0 to 1",
    "contrast": "standard deviation of the pixels",
    "dark": "share of pixels in the darkest quarter",
    "bright": "share of pixels in the brightest quarter",
    "edges_across": "mean difference of neighbours in a row",
    "edges_down": "mean difference of neighbours in a column",
    "centre_x": "centre of brightness, left −1 to right 1",
    "centre_y": "centre of brightness, top −1 to bottom 1",
    "upright": "spread down over spread across, −1 to 1",
    "slant": "lean of the brightness, −1 to 1",
    "colour": "mean difference of colour channels",
}


@dataclass(frozen=True)
class Subject:
    """What was checked.

    Attributes:
        model: name of the registered model.
        version: its number.
        candidate: its name in params.yaml.
        first: time of the first prediction.
        last: time of the last one.
        sources: predictions by source, such as `serve`.
    """

    model: str
    version: int
    candidate: str
    first: datetime
    last: datetime
    sources: dict[str, int]


def render(
    subject: Subject,
    sentence: str,
    verdict: Drift,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    titles: Mapping[str, str] = {},
) -> str:
    """The page.

    Args:
        subject: what was checked.
        sentence: the outcome in words.
        verdict: the outcome.
        reference: of the version.
        window: the predictions.
        titles: what the columns of the task's summary mean.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"p_value": p_value, "explained": lambda name: titles.get(name, EXPLAINED.get(name, ""))}
    template = resources.files("recursight.monitoring").joinpath("report.html.j2").read_text(encoding="utf-8")
    pictures = {feature.name: _picture(feature, reference, window) for feature in verdict.features}
    context: dict[str, Any] = {"subject": subject, "sentence": sentence, "verdict": verdict, "pictures": pictures}
    return environment.from_string(template).render(context) + "\n"


def p_value(value: float) -> str:
    return "< 1e-12" if value < 1e-12 else f"{value:.2g}"


def _picture(feature: Feature, reference: pd.DataFrame, window: pd.DataFrame) -> str:
    was, now = reference[feature.name], window[feature.name].dropna()
    if feature.test == CHI_SQUARED:
        return _bars(feature, was, now)
    return _histograms(feature, was.to_numpy(dtype=np.float64), now.to_numpy(dtype=np.float64))


def _histograms(feature: Feature, was: np.ndarray, now: np.ndarray) -> str:
    """Shares of both in the same bins, as outlines."""
    low, high = min(was.min(), now.min()), max(was.max(), now.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (was, now)]
    xs = np.repeat(edges, 2)
    outlines = [np.concatenate([[0], np.repeat(share, 2), [0]]) for share in shares]
    colours, titles = (8, 7 if feature.drifted else 0), ("reference", "window")
    lines = [
        Line(title, colour, xs.tolist(), outline.tolist(), title, title)
        for title, colour, outline in zip(titles, colours, outlines, strict=True)
    ]
    x, y = charts.plot_axes((edges[0], edges[-1]), (0, 1.05 * max(share.max() for share in shares)), size=SIZE)
    label = f"{feature.name}: distribution in the reference and in the window"
    return charts.line_chart(
        lines, x=x, y=y, x_title=feature.name, y_title="share", label=label, y_format=charts.percent, size=SIZE
    )


def _bars(feature: Feature, was: pd.Series, now: pd.Series) -> str:
    """Two bars a category; of many categories those that differ most."""
    shares = pd.DataFrame({"was": was.value_counts(normalize=True), "now": now.value_counts(normalize=True)}).fillna(0)
    furthest = (shares["now"] - shares["was"]).abs().sort_values(ascending=False, kind="stable").index
    shares = shares.loc[sorted(furthest[:MOST_CATEGORIES])]
    names = max(len(str(name)) for name in shares.index)
    left = min(130, 10 + 6 * names)
    scale = (SIZE[0] - left - 46) / max(float(shares.to_numpy().max()), 1e-9)
    rows = []
    for place, (name, before, after) in enumerate(shares.itertuples()):
        top = place * ROW + 2
        tip = f"{name}: {charts.percent(before)} in the reference, {charts.percent(after)} in the window"
        rows.append(
            f'<g><title>{escape(tip)}</title><text x="{left - 6}" y="{top + 12}" text-anchor="end">'
            f'{escape(str(name)[:20])}</text><rect class="bar c8" x="{left}" y="{top}" '
            f'width="{scale * before:.1f}" height="7"/><rect class="bar c{7 if feature.drifted else 0}" x="{left}" '
            f'y="{top + 8}" width="{scale * after:.1f}" height="7"/><text class="tick" '
            f'x="{left + scale * max(before, after) + 4:.1f}" y="{top + 12}">{100 * after:.1f} %</text></g>'
        )
    height = ROW * len(shares) + 6
    label = f"{feature.name}: shares in the reference and in the window"
    return svg((SIZE[0], height), label, "".join(rows))
