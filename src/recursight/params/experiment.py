"""Sections of params.yaml that decide what is trained, and how it is measured."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

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
    permutation_seed: Seed = 0
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
        bootstrap_samples: resamplings behind each interval.
        confidence: of every interval.
        seed: of the resampling.
    """

    metric: str | None = None
    bootstrap_samples: Positive = 2000
    confidence: Fraction = 0.95
    seed: Seed = 0
