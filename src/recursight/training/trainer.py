"""The trainer: a candidate, a store, a task and settings become a bundle and its history."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from inspect import getfile, signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from recursight import models, training
from recursight.data.store import Store
from recursight.errors import InputError, nearest
from recursight.files import digest
from recursight.models.assembly import Network, assemble
from recursight.models.bundle import Card, save_bundle
from recursight.models.clips import ClipNetwork
from recursight.models.kernels.build import library
from recursight.provenance import code_digest
from recursight.tasks import Batch, Task
from recursight.training.augmentation import augment
from recursight.training.batches import Batches
from recursight.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from recursight.training.gradients import GradientNorm, gradient_norms
from recursight.training.loop import Diverged, Epoch, fit
from recursight.training.optimizers import build_optimizer, learning_rate_at
from recursight.training.step import Loss
from recursight.training.windows import cut, of_parts

PROBE_EXAMPLES = 64  # enough for a steady mean of the gradient norms, few enough for layers of a thousand steps
PROBE_CLIPS = 8
VALIDATION_BATCH = 1024


@dataclass(frozen=True)
class Settings:
    """How a network is trained; every field decides weights. `params.Train` says what they mean."""

    epochs: int
    patience: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    warmup_epochs: int
    clip_norm: float
    truncate: int
    label_smoothing: float
    augment: Mapping[str, Any]
    threads: int


@dataclass
class Trainer:
    """One training of a candidate with one seed.

    Iterate over `epochs()` to the end, then `save()` the bundle. To stop early, cease to iterate; another trainer with
    the same arguments continues from the checkpoint.

    Attributes:
        name: of the candidate.
        architecture: arguments of `assemble`, all but the shapes.
        store: the examples.
        task: what is asked about them.
        task_settings: how params.yaml writes it: its name and options.
        settings: how to train.
        seed: of every random draw.
        device: where to train.
        memory_fraction: the store is copied to the device if it takes at most this share of its free memory.
        checkpoint: file of the state after the latest epoch; None keeps none.
        state: how far it has come.
    """

    name: str
    architecture: Mapping[str, Any]
    store: Store
    task: Task
    task_settings: Mapping[str, Any]
    settings: Settings
    seed: int
    device: torch.device
    memory_fraction: float = 0.5
    checkpoint: Path | None = None
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        self._require_fitting()
        for split in ("train", "validation"):
            if not len(self.store.indices(split)):
                raise InputError(f"The store has no {split} examples; set prepare.{split} in params.yaml.")
        self.vocabulary = self.task.vocabulary(self.store.targets_of(self.store.indices("train")))
        self.network = self._build()
        require_parts(self.name, self.network, self.settings.truncate)
        # Measured before the first step: there each step's gradient is the architecture's own.
        self.gradient_norms = self._gradient_norms()
        settings = self.settings
        self.optimizer = build_optimizer(
            settings.optimizer,
            self.network.parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
        )
        if self.checkpoint:
            self.state = load_checkpoint(self.checkpoint, self.digest, self.network, self.optimizer)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the weights: the key of its checkpoints, and of its run in the tracking store."""
        packages = [Path(package.__path__[0]) for package in (models, training)]
        return digest(
            {
                "architecture": dict(self.architecture),
                "task": dict(self.task_settings),
                "settings": asdict(self.settings),
                "seed": self.seed,
                "data": self.store.digest,
                "device": self.device.type,
                "code": code_digest(*packages, Path(getfile(type(self.task)))),
                "torch": torch.__version__,
                "kernels": self.kernels,
            }
        )

    @property
    def kernels(self) -> bool:
        """Whether the native kernels run it: they round otherwise than torch does."""
        return self.device.type == "cpu" and library() is not None

    @property
    def card(self) -> dict[str, Any]:
        """The fields of the bundle's card that are known before the training."""
        return {
            "candidate": self.name,
            "seed": self.seed,
            "task": dict(self.task_settings),
            "architecture": dict(self.architecture),
            "vocabulary": self.vocabulary,
            "outputs": self.task.outputs(self.vocabulary),
            "input_shape": list(self.store.shape),
            "frames": int(np.median(self.store.examples["frames"].to_numpy()[self.store.indices("train")])),
            "rate": round(float(self.store.examples["rate"].median()), 6),
            "mean": list(self.store.mean),
            "std": list(self.store.std),
            "training": asdict(self.settings),
            "training_digest": self.digest,
            "data_digest": self.store.digest,
        }

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.state.finished)

    def epochs(self) -> Iterator[Epoch]:
        """Trains until the epochs or the patience are used up; after each epoch, all of it is in the checkpoint.

        Raises:
            Diverged: if the loss or a gradient stops being finite.
        """
        if self.finished:
            return
        settings, state = self.settings, self.state
        of_validation = VALIDATION_BATCH if self.store.stills else settings.batch_size
        train, validation = self._batches("train", settings.batch_size), self._batches("validation", of_validation)
        rate = partial(
            learning_rate_at,
            highest=settings.learning_rate,
            schedule=settings.schedule,
            steps_per_epoch=len(train),
            epochs=settings.epochs,
            warmup_epochs=settings.warmup_epochs,
        )
        epochs = fit(
            self.network,
            train,
            validation,
            optimizer=self.optimizer,
            loss=training_loss(self.task, settings.label_smoothing),
            validation_loss=self.task.loss,
            curves=self.task.curves,
            learning_rate=rate,
            augment=self._augmented,
            clip_norm=settings.clip_norm,
            truncate=settings.truncate,
            seed=self.seed,
            epochs=range(len(state.history) + 1, settings.epochs + 1),
        )
        try:
            for epoch in epochs:
                self._advance(epoch)
                yield epoch
                if self.finished:
                    return
        except Diverged as error:
            raise Diverged(f"{self.name}: {error} The last good epoch's checkpoint is kept.") from None

    def save(self, folder: Path) -> Card:
        """Writes the bundle with the best epoch's weights, history.csv and gradient_norms.csv.

        The network has these weights from then on.
        """
        self.network.load_state_dict(self.state.best_weights)
        card = save_bundle(folder, self.network, **self.card, best_epoch=self.state.best_epoch)
        pd.DataFrame([epoch.row for epoch in self.state.history]).to_csv(folder / "history.csv", index=False)
        norms = pd.DataFrame([asdict(norm) for norm in self.gradient_norms])
        norms.to_csv(folder / "gradient_norms.csv", index=False)
        return card

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, inputs=augment(*batch.arguments, **self.settings.augment, generator=generator))

    def _advance(self, epoch: Epoch) -> None:
        settings, state = self.settings, self.state
        state.history.append(epoch)
        if min(state.history, key=lambda past: past.validation["loss"]) is epoch:
            state.best_epoch = epoch.epoch
            weights = self.network.state_dict().items()
            state.best_weights = {key: value.detach().cpu().clone() for key, value in weights}
        if epoch.epoch == settings.epochs:
            state.finished = "epochs"
        elif settings.patience and epoch.epoch - state.best_epoch >= settings.patience:
            state.finished = "patience"
        if self.checkpoint:
            save_checkpoint(self.checkpoint, self.digest, state, self.network, self.optimizer)

    def _require_fitting(self) -> None:
        """Raises InputError if the candidate cannot read what the store holds, or answer what the task asks."""
        over_time = self.architecture.get("over_time")
        place = f"params.yaml: candidates.{self.name}"
        if self.store.stills and over_time is not None:
            raise InputError(f"{place}.over_time: the store holds single images; remove this key.")
        if not self.store.stills and over_time is None:
            raise InputError(
                f"{place}: the store holds clips; add over_time, which reads the frames' vectors, such as "
                "over_time: {layer: gru, hidden: 64, readout: mean}."
            )
        if over_time is not None and (over_time["readout"] == "every") != self.task.per_frame:
            wanted = "'every'" if self.task.per_frame else "one vector a clip, such as 'mean', not 'every'"
            raise InputError(f"{place}.over_time.readout: this task needs {wanted}.")

    def _build(self) -> Network | ClipNetwork:
        """The network before its first step."""
        torch.manual_seed(self.seed)
        store, outputs = self.store, self.task.outputs(self.vocabulary)
        shapes = {"input_shape": store.shape, "outputs": outputs, "mean": store.mean, "std": store.std}
        return build(self.name, self.architecture, **shapes).to(self.device)

    def _batches(self, split: str, batch_size: int, first: int | None = None) -> Batches:
        """The examples of a split, or the first ones of it, streamed."""
        rows = self.store.indices(split)[:first]
        examples = self.store.examples.iloc[rows]
        starts, lengths = examples["first_frame"].to_numpy(), examples["frames"].to_numpy()
        targets = self.task.encode(examples, self.store.targets_of(rows), self.vocabulary)
        if split == "train" and (window := self.store.summary.get("window")):
            parts = cut(lengths, **window)
            targets = of_parts(targets, lengths, parts) if self.task.per_frame else targets[parts.example]
            starts, lengths = starts[parts.example] + parts.offset, parts.length
        return Batches(
            self.store.frames,
            starts,
            lengths,
            targets,
            per_frame=self.task.per_frame,
            batch_size=batch_size,
            device=self.device,
            memory_fraction=self.memory_fraction if first is None else 0.0,
        )

    def _gradient_norms(self) -> list[GradientNorm]:
        count = PROBE_EXAMPLES if self.store.stills else PROBE_CLIPS
        batch = next(self._batches("train", count, count).in_order())
        return gradient_norms(self.network, batch, self.task.loss)


def build(name: str, architecture: Mapping[str, Any], **shapes: Any) -> Network | ClipNetwork:
    """A candidate's network with fresh weights.

    Raises:
        InputError: naming the key of params.yaml that is wrong.
    """
    try:
        return assemble(architecture, **shapes)
    except InputError as error:
        raise InputError(f"params.yaml: candidates.{name}.{error}") from None


def require_parts(name: str, network: nn.Module, truncate: int) -> None:
    """Raises InputError if clips are to be read in parts by a candidate that cannot."""
    if truncate and not (isinstance(network, ClipNetwork) and network.causal):
        raise InputError(
            f"params.yaml: candidates.{name}: train.truncate reads clips in parts, which needs over_time without later "
            "frames; set train: {truncate: 0} for this candidate."
        )


def training_loss(task: Task, label_smoothing: float) -> Loss:
    """The task's loss with its options.

    Raises:
        InputError: if label smoothing is asked of a loss that has none.
    """
    if not label_smoothing:
        return task.loss
    known = [name for name, option in signature(task.loss).parameters.items() if option.default is not option.empty]
    if "label_smoothing" not in known:
        hint = nearest("label_smoothing", known) if known else "set it to 0."
        raise InputError(f"train.label_smoothing: the loss of this task has no such option; {hint}")
    loss: Any = task.loss
    return partial(loss, label_smoothing=label_smoothing)
