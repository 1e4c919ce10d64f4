"""params.yaml, typed and validated: every number and name that decides a result.

A wrong file is refused as a whole, each fault with the path of its key and, where a name is unknown, the nearest one
that exists. Names of scans, layers, stems, readouts and optimizers are checked where they are used, by the tables
that list them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from recursight.errors import InputError, nearest

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Widths = Annotated[
    list[Positive], BeforeValidator(lambda value: value if isinstance(value, list) else [value]), Field(min_length=1)
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class Section(BaseModel):
    """A mapping in params.yaml: no unknown keys, no later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Prepare(Section):
    """How raw images become the store.

    Attributes:
        size: [height, width] in pixels; None, written `keep`: the images' own size, which must then be one for all.
        resize: `pad` keeps the aspect and fills with black, `crop` keeps it and cuts the longer side, `stretch`
            does not keep it.
        channels: `keep`, `grey` (luma, ITU-R 601) or `rgb`.
        validation: share of the training images that becomes the validation split, where the source has none.
        test: share of all images that becomes the test split, where the source has none.
        seed: of the split.
    """

    size: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    resize: Literal["pad", "crop", "stretch"] = "pad"
    channels: Literal["keep", "grey", "rgb"] = "keep"
    validation: Fraction = 0.15
    test: Fraction = 0.2
    seed: int = 0

    @field_validator("size", mode="before")
    @classmethod
    def keep_is_none(cls, size: Any) -> Any:
        return None if size == "keep" else size


class Augment(Section):
    """Random changes to training images, drawn anew for each image and epoch.

    Attributes:
        shift_pixels: largest move along each axis.
        rotate_degrees: largest turn to either side.
        flip: mirror left and right, with probability one half.
    """

    shift_pixels: Annotated[float, Field(ge=0)] = 0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0
    flip: bool = False


class Train(Section):
    """How a candidate is trained; a candidate's own `train` overrides single keys.

    Attributes:
        device: `auto` (CUDA, else MPS, else CPU) or a torch device such as `cuda:1`.
        threads: CPU threads of one training. Results repeat only for an equal number of them.
        epochs: at most this many passes over the training split.
        patience: epochs without a better validation loss after which training stops; 0 never stops early.
        batch_size: images in one optimizer step.
        optimizer: a name from `training.optimizers.OPTIMIZERS`.
        learning_rate: the highest one of the schedule.
        momentum: of the optimizers that have one (`momentum`, `rmsprop`).
        weight_decay: L2 penalty, decoupled for adamw.
        schedule: `constant`, or `cosine` down to zero over the epochs.
        warmup_epochs: epochs over which the learning rate rises linearly from zero.
        clip_norm: gradients are scaled so that their norm is at most this; 0 leaves them alone.
        label_smoothing: weight taken from the true class and spread over all.
        augment: random changes to the training images.
        memory_fraction: the data set is put on the device whole if it takes at most this share of its free memory,
            else streamed from the store.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    threads: Positive = 1
    epochs: Positive = 30
    patience: Annotated[int, Field(ge=0)] = 8
    batch_size: Positive = 64
    optimizer: str = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    momentum: Probability = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Probability = 0.0
    augment: Augment = Augment()
    memory_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5


class Candidate(Section):
    """One architecture: stem, scan, layer and readout, with their sizes.

    Attributes:
        stem: what looks at the image before it is scanned (`models.stems.STEMS`).
        channels: output channels of each convolution of the `conv` stem; the last one is the width of `patches`.
        downsample: how each convolution halves the image: `pool`, or `stride`.
        patch_size: side in pixels of the patches of the stem `patches` and the scans `patches` and `patch-grid`.
        scan: the order in which the image is read (`models.scans.SCANS`).
        permutation_seed: of the order of the scan `permuted`.
        reverse: read from the end of the scan to its start.
        layer: what remembers (`models.layers.LAYERS`), or `none`.
        hidden: size of the state; a list stacks layers, first to last.
        bidirectional: read in both directions and concatenate.
        dropout: probability of dropping a feature between stacked layers and before the classifier.
        readout: how the states become one vector (`models.readouts.READOUTS`).
        heads: of the readout `multihead`.
        options: further arguments of the layer, by name.
        train: keys of the `train` section that differ for this candidate.
    """

    stem: str = "none"
    channels: Annotated[list[Positive], Field(min_length=1)] = [16, 32]
    downsample: Literal["pool", "stride"] = "pool"
    patch_size: Positive = 4
    scan: str = "rows"
    permutation_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    reverse: bool = False
    layer: str
    hidden: Widths = [64]
    bidirectional: bool = False
    dropout: Probability = 0.0
    readout: str = "last"
    heads: Positive = 4
    options: dict[str, Any] = {}
    train: dict[str, Any] = {}

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of `models.assembly.assemble`, all but the shapes."""
        return self.model_dump(exclude={"train"})


class Evaluate(Section):
    """What evaluation reports.

    Attributes:
        top_k: a prediction counts for top-k accuracy if the true class is among this many likeliest.
        calibration_bins: equal-width confidence bins of the calibration error.
        mistakes: how many of the most confident mistakes are drawn.
        confidence: of every interval, such as 0.95.
    """

    top_k: Positive = 3
    calibration_bins: Positive = 15
    mistakes: Positive = 36
    confidence: Fraction = 0.95


class Compare(Section):
    """How candidates are ranked.

    Attributes:
        metric: what ranks them, on the validation split.
        bootstrap_samples: resamplings behind each interval.
        confidence: of every interval.
        seed: of the resampling.
    """

    metric: Literal["accuracy", "macro_f1", "log_loss"] = "accuracy"
    bootstrap_samples: Positive = 2000
    confidence: Fraction = 0.95
    seed: int = 0


class Registry(Section):
    """Where the winner goes, and what any champion must reach on the test split.

    Attributes:
        model_name: name of the registered model in MLflow.
        experiment: name of the MLflow experiment that holds the runs.
        minimum_accuracy: test accuracy below which nothing becomes champion.
        minimum_class_recall: the same for the recall of the worst class.
    """

    model_name: str = "recursight"
    experiment: str = "recursight"
    minimum_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    minimum_class_recall: Annotated[float, Field(ge=0, le=1)] = 0.5


class Gate(Section):
    """What a challenger must show on the test split to take the champion's place; docs/gate.md has the reasons.

    Attributes:
        mode: `better`, or `cheaper`: not worse by `margin`, and at least `saving` cheaper.
        metric: in which it is better, or not worse. Accuracy is tested exactly, the others by paired bootstrap.
        level: highest chance of promoting a challenger that is no better (in mode cheaper: worse by `margin`).
        looks: `shared`: the level is for all challengers of one champion together; `single`: for each of them.
        maximum_recall_loss: by which the recall of any class may fall.
        margin: of the metric, below which a loss does not count in mode cheaper.
        cost: what must become cheaper: `parameters`, or `latency` of one image, measured on this machine.
        saving: share of the cost that must be saved.
        bootstrap_samples: resamplings behind the test of macro_f1 and log_loss.
        seed: of the resampling.
    """

    mode: Literal["better", "cheaper"] = "better"
    metric: Literal["accuracy", "macro_f1", "log_loss"] = "accuracy"
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    looks: Literal["shared", "single"] = "shared"
    maximum_recall_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    margin: Fraction = 0.002
    cost: Literal["parameters", "latency"] = "parameters"
    saving: Fraction = 0.1
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    seed: int = 0


class Retrain(Section):
    """When models are trained again without anybody asking. Applied by `recursight up` and `prefect deploy --all`.

    Attributes:
        schedule: whether the cron is in force; events and people can start a retraining in any case.
        cron: minute, hour, day of month, month, day of week.
        timezone: of the cron, by its IANA name.
        follow_upstream: whether a scheduled retraining first takes new commits of the branch that this one follows;
            only where nothing is uncommitted and no commit is here alone.
    """

    schedule: bool = True
    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4,5}$")] = "0 3 * * *"
    timezone: str = "UTC"
    follow_upstream: bool = True

    @field_validator("timezone")
    @classmethod
    def is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"is no timezone; {nearest(name, available_timezones())}") from None
        return name


class Params(Section):
    """The whole file."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    prepare: Prepare = Prepare()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    registry: Registry = Registry()
    gate: Gate = Gate()
    retrain: Retrain = Retrain()
    candidates: Annotated[dict[Name, Candidate], Field(min_length=1)]

    @field_validator("seeds")
    @classmethod
    def distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("lists a seed twice")
        return seeds

    @model_validator(mode="after")
    def overrides_are_valid(self) -> "Params":
        for name in self.candidates:
            self.training_of(name)
        return self

    def candidate(self, name: str) -> Candidate:
        """Raises InputError for a name that is not listed."""
        if name not in self.candidates:
            raise InputError(f"params.yaml: no candidate {name!r}; {nearest(name, self.candidates)}")
        return self.candidates[name]

    def training_of(self, name: str) -> Train:
        """The `train` section with the candidate's own keys laid over it."""
        override = self.candidates[name].train
        merged = self.train.model_dump() | override
        if isinstance(override.get("augment"), dict):
            merged["augment"] = self.train.augment.model_dump() | override["augment"]
        try:
            return Train.model_validate(merged)
        except ValidationError as error:
            raise InputError(_sentences(error, Train, f"candidates.{name}.train.")) from None


def load(path: Path) -> Params:
    """Reads and checks a params.yaml.

    Raises:
        InputError: naming every key that is unknown, missing or impossible.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from a project folder.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name} must be a mapping of sections; it is {type(content).__name__}.")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentences(error, Params)) from None


def _sentences(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One sentence a fault, each opening with the path of its key."""
    lines = []
    for fault in error.errors():
        if isinstance(fault.get("ctx", {}).get("error"), InputError):  # already a sentence, from an override
            lines.append(str(fault["ctx"]["error"]))
            continue
        path = [str(part) for part in fault["loc"]]
        key = prefix + ".".join(path)
        if fault["type"] == "extra_forbidden":
            message = f"unknown key; {nearest(path[-1], _fields_at(model, path[:-1]))}"
        elif fault["type"] == "missing":
            message = "is missing."
        elif fault["type"] == "string_pattern_mismatch" and fault["loc"][-1] == "[key]":
            message = "a candidate's name has lower-case letters, digits, '_' and '-' only, a letter first."
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            message = f"{reason[0].lower()}{reason[1:]} (it is {fault['input']!r})."
        lines.append(f"params.yaml: {key}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the keys that are known below a path."""
    for part in path:
        if part not in model.model_fields:  # a candidate's name
            model = Candidate
            continue
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
