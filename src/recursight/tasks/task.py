"""What a task is: everything that training, evaluation, registry and serving ask about targets and answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recursight.tasks.metric import Metric

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some examples, on the device.

    Attributes:
        inputs: uint8, (F, H, W, C): the frames of all examples one after another; of stills, one each.
        lengths: frames of each example, (B,) int64, on the CPU, as shapes follow from them; None for stills.
        targets: what `Task.encode` made of these examples' targets: (B, ...), or (F, ...) of a task that answers per
            frame.
    """

    inputs: "Tensor"
    lengths: "Tensor | None"
    targets: "Tensor"

    @property
    def arguments(self) -> "tuple[Tensor, ...]":
        """What the network is called with."""
        return (self.inputs,) if self.lengths is None else (self.inputs, self.lengths)


@dataclass(frozen=True)
class Tested:
    """One training's answers for one split, as figures and the report show them.

    Attributes:
        rows: of `Task.score`.
        vocabulary: of the training.
        frames: gives the first frames of some rows, by their positions: uint8, M H W C.
        confidence: of the intervals, such as 0.95.
    """

    rows: "DataFrame"
    vocabulary: Sequence[str]
    frames: Callable[[np.ndarray], np.ndarray]
    confidence: float


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        title: its heading.
        html: its content, escaped.
    """

    title: str
    html: str


@dataclass(frozen=True)
class Contender:
    """One candidate, as a task's sections of the report show it.

    Attributes:
        name: of the candidate.
        colour: its number; its elements have the CSS class `cN`.
        tested: its trainings on the test split, best one on validation first.
    """

    name: str
    colour: int
    tested: Sequence[Tested]


@dataclass(frozen=True)
class Task(ABC):
    """What is asked about examples, and how answers are scored.

    A task is a frozen dataclass; its fields are its options in params.yaml. The key in `TASKS` is its name.

    A *target* is a row of the store's targets.parquet: example, start_frame, end_frame, value (a string). Only a task
    knows what a value means. An *answer* is the output of the exported program for one example, an array; of a task
    that answers per frame, one row a frame.
    """

    per_frame: ClassVar[bool] = False
    """Whether each frame has a target and an answer. Then targets, outputs and answers are packed: those of all frames
    of all examples one after another, (F, ...)."""

    answer_column: ClassVar[str] = "answer"
    """Column of whole answers in the prediction log and in scored folders."""

    # Data.

    def strata(self, values: Sequence[str]) -> Sequence[str]:
        """Names a stratum for each distinct target value of a source; splits share out each stratum alike.

        Raises:
            InputError: if the values cannot be this task's targets.
        """
        return ["all"] * len(values)

    @abstractmethod
    def vocabulary(self, targets: "DataFrame") -> list[str]:
        """Classes or words, in the order of the network's outputs, from the training split's targets.

        Args:
            targets: columns example, start_frame, end_frame and value, a categorical whose categories are in the
                source's order.
        """

    @abstractmethod
    def outputs(self, vocabulary: Sequence[str]) -> int:
        """Width of the network's output layer."""

    @abstractmethod
    def encode(self, examples: "DataFrame", targets: "DataFrame", vocabulary: Sequence[str]) -> np.ndarray:
        """Targets as the loss and `score` take them: one row an example (or frame), in the order of `examples`.

        Args:
            examples: rows of examples.parquet; the index is what `targets.example` refers to.
            targets: of these examples; columns as above.
            vocabulary: of the training.
        """

    # Training. These run on the device, inside a CUDA graph: no Python value may depend on the data.

    @abstractmethod
    def loss(self, outputs: "Tensor", batch: Batch) -> "Tensor":
        """One value an example, (B,). A task with options of the loss takes them as keyword arguments with defaults,
        and gets them in training only: `label_smoothing` from the section `train`."""

    def curves(self, outputs: "Tensor", batch: Batch) -> "Mapping[str, Tensor]":
        """Values an example (B,), by metric name, whose means are learning curves beside the loss."""
        return {}

    # Answers.

    @abstractmethod
    def answers(self, outputs: "Tensor") -> "Tensor":
        """What the exported program computes from the network's outputs, (B, ...) floats."""

    @abstractmethod
    def score(
        self, answers: np.ndarray, targets: np.ndarray, vocabulary: Sequence[str], examples: "DataFrame"
    ) -> "DataFrame":
        """Scores each example: one row each, from which every metric can be computed and resampled.

        The columns `actual` and `predicted`, where there are such, are drawn by `dvc plots`.

        Args:
            answers: of these examples, (N, ...), or packed (F, ...).
            targets: of `encode`.
            vocabulary: of the training.
            examples: rows of examples.parquet.
        """

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """By name. The first one is the default wherever params.yaml names a metric; of candidates equal in it, the
        others decide in their order."""

    @property
    def default(self) -> Metric:
        return next(iter(self.metrics.values()))

    @property
    def minimums(self) -> Mapping[str, float]:
        """What any champion must reach where params.yaml says nothing, by metric."""
        return {}

    def slices(self, rows: "DataFrame") -> "DataFrame | None":
        """Parts of the split in which a challenger may not lose more than the gate allows.

        Returns:
            Index: name of the part; columns `hits` and `count`. None if there are none.
        """
        return None

    @property
    @abstractmethod
    def rendering(self) -> ModuleType:
        """The module that makes answers readable, in production too: MLflow copies its file into registered models.

        It imports nothing of recursight and has two functions. `present(answers, vocabulary)` gives a list of
        JSON objects, one an answer, for `predict` and `serve`. `summary(answers, vocabulary)` gives a dictionary of
        columns, name to array, for the prediction log, scored folders and the drift reference; strings are
        categories, numbers are compared as distributions.
        """

    def present(self, answers: np.ndarray, vocabulary: Sequence[str]) -> list[dict[str, Any]]:
        """Answers as JSON objects."""
        presented: list[dict[str, Any]] = self.rendering.present(answers, vocabulary)
        return presented

    def summary(self, answers: np.ndarray, vocabulary: Sequence[str]) -> "DataFrame":
        """Answers as columns: strings are categories, numbers are compared as distributions."""
        import pandas as pd

        return pd.DataFrame(self.rendering.summary(answers, vocabulary))

    @property
    def summary_titles(self) -> Mapping[str, str]:
        """Explains columns of `summary`, for the drift report."""
        return {}

    def line(self, presented: Mapping[str, Any]) -> str:
        """One of `present`'s objects on one line, for a terminal."""
        return "  ".join(f"{name} {value}" for name, value in presented.items())

    @property
    def served(self) -> Path:
        """The file of `rendering`."""
        assert self.rendering.__file__
        return Path(self.rendering.__file__)

    # Figures.

    def figures(self, folder: Path, tested: Tested) -> None:  # noqa: B027 - a task may have none
        """Writes tables and pictures of one training's answers for the test split; the folder exists."""

    def sections(self, contenders: Sequence[Contender]) -> list[Section]:
        """Its part of the comparison's report.

        Args:
            contenders: best first.
        """
        return []

    def card(self, rows: "DataFrame") -> Mapping[str, str]:
        """Its sections of the model card, Markdown by heading, from the scores of the test split."""
        return {}

    def limits(self, rows: "DataFrame") -> Sequence[str]:
        """Sentences on what the model is bad at, for the model card."""
        return []

    # Identity.

    @cached_property
    def options(self) -> dict[str, Any]:
        """Its fields, as JSON."""
        return asdict(self)
