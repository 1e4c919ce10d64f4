"""Sections of params.yaml that decide what is trained, and how it is measured."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from recursight.params.section import Fraction, Positive, Probability, Section, Seed, Widths


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
    seed: Seed = 0

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


def _with_options(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, dict):
            return value if options else name
    raise ValueError("write a name, or a name with its options, such as {conv: {channels: [16, 32]}}")


def in_words(part: str | dict[str, dict[str, Any]]) -> str:
    """A part on one line, such as `conv (channels 8, 16)`."""
    if isinstance(part, str):
        return part
    ((name, options),) = part.items()
    values = {
        option: ", ".join(map(str, value)) if isinstance(value, list) else value for option, value in options.items()
    }
    return f"{name} ({'; '.join(f'{option} {value}' for option, value in values.items())})"


Part = Annotated[str | dict[str, dict[str, Any]], BeforeValidator(_with_options)]


class Candidate(Section):
    """One architecture: stem, scan, layer and readout, each a name, or a name with options.

    Attributes:
        stem: what looks at the image before it is scanned (`models.stems.STEMS`).
        scan: the order in which the image is read (`models.scans.SCANS`).
        reverse: read from the end of the scan to its start.
        layer: what remembers (`models.layers.LAYERS`), or `none`.
        hidden: size of the state; a list stacks layers, first to last.
        bidirectional: read in both directions and concatenate.
        dropout: probability of dropping a feature between stacked layers and before the head.
        readout: how the states become one vector (`models.readouts.READOUTS`).
        train: keys of the `train` section that differ for this candidate.
    """

    stem: Part = "none"
    scan: Part = "rows"
    reverse: bool = False
    layer: Part
    hidden: Widths = [64]
    bidirectional: bool = False
    dropout: Probability = 0.0
    readout: Part = "last"
    train: dict[str, Any] = {}

    @property
    def architecture(self) -> dict[str, Any]:
        """The first argument of `models.assembly.assemble`."""
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
    seed: Seed = 0
