"""Classification: one class an example. Answers are the probabilities of all classes.

A class that a split neither holds nor is predicted in is left out of averages rather than counted as zero or one. A
target that is not in the vocabulary has the code -1; its example counts as wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recursight.errors import InputError
from recursight.tasks import class_answers, class_card
from recursight.tasks.metric import Metric, mean_of, share_of, wilson_interval
from recursight.tasks.task import Batch, Contender, Section, Task, Tested

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from torch import Tensor

MISTAKES_IN_REPORT = 24


@dataclass(frozen=True)
class Classification(Task):
    """Which of several classes is it?

    Attributes:
        top_k: an answer counts for top-k accuracy if the true class is among this many likeliest.
        calibration_bins: equal-width confidence bins of the calibration error.
        mistakes: how many of the most confident mistakes are drawn.
    """

    answer_column: ClassVar[str] = "probabilities"

    top_k: int = 3
    calibration_bins: int = 15
    mistakes: int = 36

    def __post_init__(self) -> None:
        for option, value in self.options.items():
            if value < 1:
                raise InputError(f"{option}: must be 1 or more (it is {value}).")

    def strata(self, values: Sequence[str]) -> Sequence[str]:
        if len(values) < 2:
            raise InputError(f"the data has one class only ({values[0]!r}); a classifier needs two or more.")
        return values

    def vocabulary(self, targets: "DataFrame") -> list[str]:
        return [str(name) for name in targets["value"].cat.remove_unused_categories().cat.categories]

    def outputs(self, vocabulary: Sequence[str]) -> int:
        return len(vocabulary)

    def encode(self, examples: "DataFrame", targets: "DataFrame", vocabulary: Sequence[str]) -> np.ndarray:
        """Codes into the vocabulary, int64, N."""
        values = targets.set_index("example")["value"]
        if values.index.has_duplicates:
            twice = values.index[values.index.duplicated()][0]
            raise InputError(f"example {examples.loc[twice, 'id']} has several classes; classification takes one each.")
        if not examples.index.isin(values.index).all():
            bare = examples.index[~examples.index.isin(values.index)][0]
            raise InputError(f"example {examples.loc[bare, 'id']} has no class; classification takes one each.")
        codes: np.ndarray = values.reindex(examples.index).cat.set_categories(list(vocabulary)).cat.codes.to_numpy()
        return codes.astype(np.int64)

    def loss(self, outputs: "Tensor", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        """Cross-entropy; `label_smoothing` is the weight taken from the true class and spread over all."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, batch.targets, reduction="none", label_smoothing=label_smoothing)

    def curves(self, outputs: "Tensor", batch: Batch) -> "Mapping[str, Tensor]":
        return {"accuracy": outputs.argmax(dim=-1) == batch.targets}

    def answers(self, outputs: "Tensor") -> "Tensor":
        return outputs.softmax(dim=-1)

    def score(
        self, answers: np.ndarray, targets: np.ndarray, vocabulary: Sequence[str], examples: "DataFrame | None" = None
    ) -> "DataFrame":
        """Columns actual, predicted (names), right, log_loss (nats), confidence, in_top_k."""
        import pandas as pd

        probabilities = answers.astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 does not sum to one exactly
        predicted = probabilities.argmax(axis=1)
        known = targets >= 0
        of_truth = np.where(known, probabilities[np.arange(len(targets)), targets], 0.0)
        smallest = np.finfo(np.float64).eps  # where scikit-learn's log_loss clips, too
        names = pd.CategoricalDtype(list(vocabulary))
        return pd.DataFrame(
            {
                "actual": pd.Categorical.from_codes(targets, dtype=names),
                "predicted": pd.Categorical.from_codes(predicted, dtype=names),
                "right": predicted == targets,
                "log_loss": -np.log(np.clip(of_truth, smallest, 1 - smallest)),
                "confidence": probabilities.max(axis=1),
                "in_top_k": known & _among_likeliest(probabilities, targets, self.top_k),
            }
        )

    @cached_property
    def _metrics(self) -> Mapping[str, Metric]:
        bins = self.calibration_bins
        metrics = (
            share_of("right", name="accuracy", title="accuracy"),
            mean_of("log_loss", name="log_loss", title="log loss", higher_is_better=False),
            Metric("macro_f1", "macro F1", macro_f1, macro_f1_resampled, share=True),
            share_of("in_top_k", name="top_k_accuracy", title=f"top-{self.top_k} accuracy"),
            Metric(
                "calibration_error",
                "calibration error",
                lambda rows: calibration_error(reliability(rows, bins, 0.95)),
                lambda rows, draws: calibration_error_resampled(rows, draws, bins),
                higher_is_better=False,
                share=True,
            ),
            Metric(
                "worst_class_recall",
                "recall of the worst class",
                lambda rows: float(recalls(rows).min()),
                worst_recall_resampled,
                share=True,
                detail=lambda rows: f"class {recalls(rows).idxmin()!r}",
            ),
        )
        return {metric.name: metric for metric in metrics}

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self._metrics

    @property
    def minimums(self) -> Mapping[str, float]:
        return {"accuracy": 0.9, "worst_class_recall": 0.5}

    def slices(self, rows: "DataFrame") -> "DataFrame":
        """Right answers and examples of each class that occurs."""
        right = rows.groupby("actual", observed=True)["right"]
        return right.agg(["sum", "count"]).rename(columns={"sum": "hits"})

    def figures(self, folder: Path, tested: Tested) -> None:
        """Confusion, scores of each class, reliability and mistakes, as tables and pictures."""
        import pandas as pd

        from recursight.tasks import class_figures

        rows, classes = tested.rows, list(tested.vocabulary)
        counts = confusion(rows)
        table = pd.DataFrame(counts, columns=classes)
        table.insert(0, "actual", classes, allow_duplicates=True)
        table.to_csv(folder / "confusion.csv", index=False)
        per_class(rows).to_csv(folder / "per_class.csv", index=False)
        bins = reliability(rows, self.calibration_bins, tested.confidence)
        bins.to_csv(folder / "reliability.csv", index=False)
        class_figures.draw_confusion(folder / "confusion.svg", counts, classes)
        class_figures.draw_reliability(folder / "reliability.svg", bins, calibration_error(bins), tested.confidence)
        worst, total = worst_mistakes(rows, self.mistakes)
        captions = _captions(rows, worst)
        class_figures.draw_mistakes(folder / "mistakes.svg", tested.frames(worst), captions, total)

    def sections(self, contenders: Sequence[Contender]) -> list[Section]:
        """Confusion matrices of all candidates; mistakes and classes of the best one."""
        import pandas as pd

        from recursight.drawing.svg import data_url
        from recursight.tasks.class_figures import confusion_chart, frequent_mistakes, render

        best = contenders[0]
        classes, rows = list(best.tested[0].vocabulary), best.tested[0].rows
        counts = {one.name: np.sum([confusion(tested.rows) for tested in one.tested], axis=0) for one in contenders}
        worst, total = worst_mistakes(rows, min(self.mistakes, MISTAKES_IN_REPORT))
        several = len(best.tested) > 1
        matrices = render(
            "class_matrices.html.j2",
            matrices=[
                (one.name, one.colour, confusion_chart(counts[one.name], classes, name=one.name)) for one in contenders
            ],
            several=several,
        )
        by_class = per_class(pd.concat([tested.rows for tested in best.tested]))
        mistakes = render(
            "class_mistakes.html.j2",
            mistakes=[
                (data_url(image), *caption)
                for image, caption in zip(best.tested[0].frames(worst), _captions(rows, worst), strict=True)
            ],
            mistaken=total,
            several=several,
            pairs=frequent_mistakes(counts[best.name], classes),
            classes=by_class.sort_values("f1", kind="stable").to_dict("records"),
        )
        return [Section("Confusion matrices", matrices), Section(f"Where {best.name} errs", mistakes)]

    @property
    def rendering(self) -> ModuleType:
        return class_answers

    @property
    def summary_titles(self) -> Mapping[str, str]:
        return {"predicted": "how often each class is predicted", "confidence": "probability of the predicted class"}

    def line(self, presented: Mapping[str, Any]) -> str:
        return f"{presented['class']}  {presented['probability']:.2%}"

    def card(self, rows: "DataFrame") -> Mapping[str, str]:
        return class_card.sections(per_class(rows), confusion(rows))

    def limits(self, rows: "DataFrame") -> Sequence[str]:
        return class_card.limits(per_class(rows), confusion(rows), self.metrics["calibration_error"].value(rows))


def worst_mistakes(rows: "DataFrame", most: int) -> tuple[np.ndarray, int]:
    """Positions of the most confident mistakes, and how many mistakes there are."""
    wrong = np.flatnonzero(~rows["right"].to_numpy())
    order = np.argsort(-rows["confidence"].to_numpy()[wrong], kind="stable")
    return wrong[order][:most], len(wrong)


def _captions(rows: "DataFrame", positions: np.ndarray) -> list[tuple[str, str, float]]:
    """Actual class, predicted class and confidence."""
    chosen = rows.iloc[positions]
    return list(zip(chosen["actual"].astype(str), chosen["predicted"], chosen["confidence"], strict=True))


def _among_likeliest(probabilities: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    likeliest = np.argsort(probabilities, axis=1, kind="stable")[:, ::-1][:, :k]
    if k == 1:
        likeliest = probabilities.argmax(axis=1)[:, np.newaxis]  # of equals, the one that is predicted
    among: np.ndarray = (likeliest == targets[:, np.newaxis]).any(axis=1)
    return among


def recalls(rows: "DataFrame") -> "Series[float]":
    """Share of right answers of each class that occurs, by its name."""
    shares: Series[float] = rows.groupby("actual", observed=True)["right"].mean()
    return shares


def macro_f1(rows: "DataFrame") -> float:
    """Mean F1 over the classes that occur or are predicted; classes that were not trained are one more, with F1 0."""
    return float(macro_f1_resampled(rows, np.ones((len(rows), 1)))[0])


def macro_f1_resampled(rows: "DataFrame", draws: np.ndarray) -> np.ndarray:
    """From counts per class alone: F1 = 2 · hits / (present + predicted)."""
    hits, present, predicted = _by_class(rows)
    total = (present + predicted) @ draws
    f1 = np.divide(2 * (hits @ draws), total, out=np.zeros_like(total), where=total > 0)
    unknown = rows["actual"].isna().to_numpy() @ draws > 0
    mean: np.ndarray = f1.sum(axis=0) / ((total > 0).sum(axis=0) + unknown)
    return mean


def worst_recall_resampled(rows: "DataFrame", draws: np.ndarray) -> np.ndarray:
    hits, present, _ = _by_class(rows)
    count = present @ draws
    recall = np.divide(hits @ draws, count, out=np.ones_like(count), where=count > 0)
    worst: np.ndarray = recall.min(axis=0)
    return worst


def _by_class(rows: "DataFrame"):  # type: ignore[no-untyped-def]  # scipy has no types
    """Sparse K × N indicators of each example's class: where it is right, where it is, where it is predicted."""
    from scipy import sparse

    actual, predicted = (rows[column].cat.codes.to_numpy() for column in ("actual", "predicted"))
    classes = len(rows["actual"].cat.categories)

    def indicators(codes: np.ndarray, chosen: np.ndarray):  # type: ignore[no-untyped-def]
        columns = np.flatnonzero(chosen)
        return sparse.csr_matrix((np.ones(len(columns)), (codes[columns], columns)), shape=(classes, len(codes)))

    known = actual >= 0
    return (
        indicators(actual, rows["right"].to_numpy()),
        indicators(actual, known),
        indicators(predicted, predicted >= 0),
    )


def confusion(rows: "DataFrame") -> np.ndarray:
    """Counts, K × K: row = actual, column = predicted; classes that do not occur keep their row and column."""
    from sklearn.metrics import confusion_matrix

    classes = range(len(rows["actual"].cat.categories))
    matrix: np.ndarray = confusion_matrix(rows["actual"].cat.codes, rows["predicted"].cat.codes, labels=classes)
    return matrix


def per_class(rows: "DataFrame") -> "DataFrame":
    """One row per class: class, precision, recall, f1, support.

    Precision of a class that is never predicted and recall of one that does not occur are NaN.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    names = list(rows["actual"].cat.categories)
    precision, recall, f1, support = precision_recall_fscore_support(
        rows["actual"].cat.codes, rows["predicted"].cat.codes, labels=range(len(names)), zero_division=np.nan
    )
    return pd.DataFrame({"class": names, "precision": precision, "recall": recall, "f1": f1, "support": support})


def reliability(rows: "DataFrame", bins: int, confidence: float) -> "DataFrame":
    """How often predictions of a given confidence are right (Guo et al., 2017, arXiv:1706.04599).

    Args:
        rows: of `Classification.score`.
        bins: of equal width over confidences from 0 to 1.
        confidence: of the interval around each bin's accuracy.

    Returns:
        One row per bin: low, high, count, confidence (mean), accuracy, accuracy_low, accuracy_high; the last four NaN
        in an empty bin.
    """
    import pandas as pd

    certainty, place = rows["confidence"].to_numpy(), _bins(rows, bins)
    edges = np.linspace(0, 1, bins + 1)
    counts = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=rows["right"].to_numpy(), minlength=bins)
    sums = np.bincount(place, weights=certainty, minlength=bins)
    filled = counts > 0
    intervals = np.full((bins, 2), np.nan)
    for index in np.flatnonzero(filled):
        intervals[index] = wilson_interval(float(hits[index]), int(counts[index]), confidence)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
            "confidence": np.divide(sums, counts, out=np.full(bins, np.nan), where=filled),
            "accuracy": np.divide(hits, counts, out=np.full(bins, np.nan), where=filled),
            "accuracy_low": intervals[:, 0],
            "accuracy_high": intervals[:, 1],
        }
    )


def _bins(rows: "DataFrame", bins: int) -> np.ndarray:
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    places: np.ndarray = np.clip(np.digitize(rows["confidence"].to_numpy(), inner, right=True), 0, bins - 1)
    return places


def calibration_error(bins: "DataFrame") -> float:
    """Expected calibration error: mean distance of accuracy from confidence over bins, weighted by their counts.

    Args:
        bins: from `reliability`.
    """
    distance = (bins["accuracy"] - bins["confidence"]).abs().fillna(0.0)
    return float((distance * bins["count"]).sum() / bins["count"].sum())


def calibration_error_resampled(rows: "DataFrame", draws: np.ndarray, bins: int) -> np.ndarray:
    from scipy import sparse

    excess = rows["right"].to_numpy(dtype=np.float64) - rows["confidence"].to_numpy()
    by_bin = sparse.csr_matrix((excess, (_bins(rows, bins), np.arange(len(rows)))), shape=(bins, len(rows)))
    error: np.ndarray = np.abs(by_bin @ draws).sum(axis=0) / len(rows)
    return error
