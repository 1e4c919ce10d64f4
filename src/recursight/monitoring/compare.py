"""Whether a window of predictions differs from the reference: a test and an effect size for each feature.

Drift must be both more than chance explains (Kolmogorov-Smirnov for numbers, chi-squared for categories, with Holm's
correction, so that the level holds for all features together) and large enough to matter (population stability index).
The test alone alarms on trifles in a large window, the index alone on noise in a small one.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from recursight.evaluation.significance import holm

KOLMOGOROV_SMIRNOV, CHI_SQUARED = "Kolmogorov-Smirnov", "chi-squared"
BINS = 10  # deciles of the reference
LEAST_SHARE = 5e-4  # of an empty bin, whose logarithm would be infinite
LEAST_EXPECTED = 5  # rows of a category in either sample, below which chi-squared's distribution does not hold


@dataclass(frozen=True)
class Feature:
    """One feature, compared.

    Attributes:
        name: of a figure of `data.statistics`, or of a column of the task's summary of answers.
        test: `KOLMOGOROV_SMIRNOV` or `CHI_SQUARED`.
        statistic: of that test: the largest distance of the distribution functions, or chi-squared.
        p_value: chance of a statistic at least as large without drift.
        p_holm: the same, corrected for the number of features.
        psi: population stability index over deciles of the reference, or over categories.
        drifted: corrected p-value at or below the level, and index at or above its floor.
    """

    name: str
    test: str
    statistic: float
    p_value: float
    p_holm: float
    psi: float
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """A window against the reference.

    Attributes:
        rows: of the window.
        reference_rows: of the reference.
        level: highest chance of any alarm without drift.
        psi_floor: index below which a difference does not matter.
        features: the strongest difference first.
    """

    rows: int
    reference_rows: int
    level: float
    psi_floor: float
    features: list[Feature]

    @property
    def drifted(self) -> list[Feature]:
        """Features that have; none if all is well."""
        return [feature for feature in self.features if feature.drifted]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(reference: pd.DataFrame, window: pd.DataFrame, *, level: float, psi_floor: float) -> Drift:
    """Tests every feature of the reference that the window has.

    Args:
        reference: of the version, see `reference.reference_of`.
        window: predictions, with the same columns and possibly others; missing values are left out.
        level: highest chance of any alarm without drift.
        psi_floor: population stability index that a drift has at least.
    """
    found = []
    for name in reference.columns:
        values = window[name].dropna() if name in window else pd.Series()
        if len(values):
            compared = _numbers if pd.api.types.is_numeric_dtype(reference[name]) else _categories
            found.append((name, *compared(reference[name].to_numpy(), values.to_numpy())))
    corrected = holm([p_value for *_, p_value, _ in found])
    features = [
        Feature(name, test, statistic, p_value, p_holm, psi, p_holm <= level and psi >= psi_floor)
        for (name, test, statistic, p_value, psi), p_holm in zip(found, corrected, strict=True)
    ]
    features.sort(key=lambda feature: (not feature.drifted, -feature.psi))
    return Drift(len(window), len(reference), level, psi_floor, features)


def stability_index(expected: np.ndarray, observed: np.ndarray) -> float:
    """Sum of (q - p) ln(q / p) over shares p and q of counts; 0.1 is commonly held for moderate, 0.25 for large."""
    p = np.maximum(expected / expected.sum(), LEAST_SHARE)
    q = np.maximum(observed / observed.sum(), LEAST_SHARE)
    return float(((q - p) * np.log(q / p)).sum())


def bin_edges(reference: np.ndarray) -> np.ndarray:
    """Deciles of the reference, and its end: values outside its range get separate bins."""
    quantiles = np.quantile(reference, np.arange(BINS) / BINS, method="lower")
    beyond = np.nextafter(reference.max(), np.inf, dtype=reference.dtype)
    return np.unique([*quantiles, beyond])


def _numbers(reference: np.ndarray, window: np.ndarray) -> tuple[str, float, float, float]:
    from scipy.stats import ks_2samp

    result = ks_2samp(reference, window, method="asymp")
    edges = bin_edges(reference)
    expected, observed = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        for values in (reference, window)
    )
    return KOLMOGOROV_SMIRNOV, float(result.statistic), float(result.pvalue), stability_index(expected, observed)


def _categories(reference: np.ndarray, window: np.ndarray) -> tuple[str, float, float, float]:
    """Categories too rare to be tested alone are counted together."""
    from scipy.stats import chi2_contingency

    names = sorted({*reference, *window})
    counts = np.array([pd.Series(values).value_counts().reindex(names, fill_value=0) for values in (reference, window)])
    index = stability_index(*counts)
    least = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    rare = least < LEAST_EXPECTED
    table = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)] if rare.any() else [counts])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return CHI_SQUARED, 0.0, 1.0, index
    result = chi2_contingency(table, correction=False)
    return CHI_SQUARED, float(result.statistic), float(result.pvalue), index
