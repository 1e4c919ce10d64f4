"""Sections of params.yaml for preparation, training and evaluation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from recursight.params.section import Fraction, Natural, Positive, Probability, Section, Seed, Widths


class Frames(Section):
    """How clips become frames of the store.

    Attributes:
        rate: frames per second that clips are resampled at; None, written `keep`, for each clip's own.
        window: seconds; training cuts longer clips into parts of this length; 0 cuts nothing. The store has them whole.
        overlap: share of a window that the next one repeats.
        crop: [top, left, height, width] in pixels of the source, cut out of each frame before resizing; None, written
            `keep`, for the whole frame.
    """

    rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    window: Annotated[float, Field(ge=0)] = 0.0
    overlap: Probability = 0.5
    crop: tuple[Natural, Natural, Positive, Positive] | None = None

    @field_validator("rate", "crop", mode="before")
    @classmethod
    def keep_is_none(cls, value: Any) -> Any:
        return None if value == "keep" else value


class Prepare(Section):
    """How raw images are converted into the store.

    Attributes:
        size: [height, width] in pixels; None, written `keep`, for the original size, which must be the same for all.
        resize: `pad` keeps the aspect ratio and fills with black, `crop` keeps it and crops the longer side,
            `stretch` changes it.
        channels: `keep`, `grey` (luma, ITU-R 601) or `rgb`.
        validation: share of the training images used as validation split, if the source has none.
        test: share of all images used as test split, if the source has none.
        seed: random seed of the split.
        frames: what holds for clips only.
    """

    size: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    resize: Literal["pad", "crop", "stretch"] = "pad"
    channels: Literal["keep", "grey", "rgb"] = "keep"
    validation: Fraction = 0.15
    test: Fraction = 0.2
    seed: Seed = 0
    frames: Frames = Frames()

    @field_validator("size", mode="before")
    @classmethod
    def keep_is_none(cls, size: Any) -> Any:
        return None if size == "keep" else size


class Augment(Section):
    """Random augmentation, drawn anew for each training image and epoch.

    Attributes:
        shift_pixels: maximum shift along each axis.
        rotate_degrees: maximum rotation in either direction.
        flip: mirror horizontally with probability 0.5.
    """

    shift_pixels: Annotated[float, Field(ge=0)] = 0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0
    flip: bool = False


class Train(Section):
    """How candidates are trained; the key `train` of a candidate overrides single keys.

    Attributes:
        threads: CPU threads of one training. Results are reproducible only with the same number.
        epochs: maximum number of passes over the training split.
        patience: epochs without a better validation loss before training stops; 0 disables early stopping.
        batch_size: images, or clips, in one optimizer step.
        optimizer: a name from `training.optimizers.OPTIMIZERS`.
        learning_rate: maximum of the schedule.
        momentum: for the optimizers `momentum` and `rmsprop`.
        weight_decay: L2 penalty; decoupled weight decay for adamw.
        schedule: `constant`, or `cosine` down to zero over the epochs.
        warmup_epochs: epochs over which the learning rate rises linearly from zero.
        clip_norm: maximum gradient norm; 0 disables clipping.
        truncate: of clips, frames through which the backward pass goes back in time; 0: all. For streams whose whole
            history does not fit into memory; only candidates that look at no later frame can be trained so.
        label_smoothing: probability moved from the true class to all classes evenly.
        augment: random changes to the training images.
    """

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
    truncate: Annotated[int, Field(ge=0)] = 0
    label_smoothing: Probability = 0.0
    augment: Augment = Augment()


class Execution(Section):
    """Where training and evaluation run. No weight depends on it, so that a change here trains nothing again.

    Attributes:
        device: `auto` (CUDA, else MPS, else CPU) or a torch device such as `cuda:1`.
        memory_fraction: the data set is put on the device whole if it takes at most this share of its free memory,
            else streamed from the store.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
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


class OverTime(Section):
    """How the vectors of a clip's frames are read.

    Attributes:
        layer: recurrent layer that reads sequences (`models.layers.LAYERS`), or one of those for clips alone
            (`models.layers.OVER_TIME_LAYERS`), or `none`.
        hidden: state size; a list gives one size per stacked layer.
        bidirectional: read in both directions and concatenate the states.
        dropout: dropout probability between stacked layers and before the head.
        readout: how the states become one vector (`models.readouts.OVER_TIME`); `every` gives an output per frame.
    """

    layer: Part
    hidden: Widths = [64]
    bidirectional: bool = False
    dropout: Probability = 0.0
    readout: Part = "last"


class Candidate(Section):
    """A network: stem, scan, layer and readout, each a name, or a name with its options.

    Attributes:
        stem: processes the image before the scan (`models.stems.STEMS`).
        scan: the order in which the image is read (`models.scans.SCANS`).
        reverse: read the scan backwards.
        layer: recurrent layer (`models.layers.LAYERS`), or `none`.
        hidden: state size; a list gives one size per stacked layer.
        bidirectional: read in both directions and concatenate the states.
        dropout: dropout probability between stacked layers and before the head.
        readout: how the states become one vector (`models.readouts.READOUTS`).
        over_time: for clips: how the frames' vectors are read.
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
    over_time: OverTime | None = None
    train: dict[str, Any] = {}

    @property
    def architecture(self) -> dict[str, Any]:
        """The first argument of `models.assembly.assemble`."""
        return self.model_dump(exclude={"train"}, exclude_none=True)


class Task(Section, extra="allow"):
    """What is asked about each example; written as a name, or as a mapping with the name and the task's options.

    Attributes:
        name: of the task (`tasks.TASKS`).
    """

    name: str = "classification"

    @model_validator(mode="before")
    @classmethod
    def name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Evaluate(Section, extra="allow"):
    """What evaluation reports. Further keys are options of the task, such as `top_k`, which then retrain nothing.

    Attributes:
        confidence: of every interval, such as 0.95.
    """

    confidence: Fraction = 0.95


class Compare(Section):
    """How candidates are ranked.

    Attributes:
        metric: of the task, ranks them on the validation split; None: the task's first one.
        bootstrap_samples: number of bootstrap samples for each interval.
        confidence: of every interval.
        seed: random seed of the bootstrap.
    """

    metric: str | None = None
    bootstrap_samples: Positive = 2000
    confidence: Fraction = 0.95
    seed: Seed = 0
