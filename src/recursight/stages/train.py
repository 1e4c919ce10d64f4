"""The stage train@NAME: a candidate of params.yaml and the store become a bundle per seed."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock

from recursight import models, training
from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.files import digest, replacing, write_json
from recursight.layout import Layout
from recursight.models.assembly import Classifier, assemble
from recursight.models.bundle import save_bundle
from recursight.models.kernels.build import library
from recursight.models.scans import OF_PATCHES
from recursight.params import Candidate, Params, Train, load
from recursight.provenance import code_digest, git_commit, machine
from recursight.stages.lifeline import alone, in_a_flow
from recursight.stages.progress import progress
from recursight.training.augmentation import augment
from recursight.training.batches import Batches
from recursight.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from recursight.training.devices import choose_device
from recursight.training.gradients import gradient_norms
from recursight.training.loop import Diverged, Epoch, fit
from recursight.training.optimizers import build_optimizer, learning_rate_at

PROBE_IMAGES = 64  # enough for a steady mean of the gradient norms, few enough for layers of a thousand steps


@dataclass(frozen=True)
class Training:
    """All that decides one training: equal for equal weights.

    Attributes:
        name: of the candidate.
        candidate: its architecture.
        settings: the `train` section with the candidate's own keys laid over it.
        seed: of every random draw.
        store: the images.
        device: where it runs.
    """

    name: str
    candidate: Candidate
    settings: Train
    seed: int
    store: Store
    device: torch.device

    @cached_property
    def digest(self) -> str:
        """The key of its checkpoints, and of its run in the tracking store."""
        return digest(
            {
                "architecture": self.candidate.architecture,
                "settings": self.settings.model_dump(),
                "seed": self.seed,
                "data": self.store.digest,
                "device": self.device.type,
                "code": code_digest(*(Path(package.__path__[0]) for package in (models, training))),
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
        """What is known of the bundle before there is one."""
        return {
            "candidate": self.name,
            "seed": self.seed,
            "architecture": self.candidate.architecture,
            "classes": list(self.store.classes),
            "input_shape": list(self.store.shape[1:]),
            "mean": list(self.store.mean),
            "std": list(self.store.std),
            "training": self.settings.model_dump(),
            "training_digest": self.digest,
            "data_digest": self.store.digest,
        }

    def build(self) -> Classifier:
        """The network before its first step."""
        torch.manual_seed(self.seed)
        shape, store = self.store.shape, self.store
        if shape[0] != 1:
            raise InputError(f"The store holds clips of {shape[0]} frames; candidates read single images so far.")
        network = _assemble(
            self.name, self.candidate, shape[1:], classes=len(store.classes), mean=store.mean, std=store.std
        )
        return network.to(self.device)

    def batches(self, split: str) -> Batches:
        return Batches(
            self.store.images,
            self.store.indices(split),
            self.store.labels(split),
            batch_size=self.settings.batch_size if split == "train" else 1024,
            device=self.device,
            memory_fraction=self.settings.memory_fraction,
        )


def run(layout: Layout, name: str) -> None:
    """Trains a candidate once per seed, going on from checkpoints where there are any.

    Raises:
        InputError: if parameters are wrong, the store is missing, training diverges or is under way elsewhere.
    """
    params = load(layout.params)
    candidate, settings = params.candidate(name), params.training_of(name)
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    with alone(layout.lock(f"train@{name}")), _slot(device):
        store = open_store(layout.store)
        with replacing(layout.candidate(name)) as folder:
            for seed in params.seeds:
                train_once(
                    layout, Training(name, candidate, settings, seed, store, device), folder / f"seed-{seed}", params
                )
            histories = [_history(folder / f"seed-{seed}", seed) for seed in params.seeds]
        with replacing(layout.history_plot(name)) as path:
            pd.concat(histories).to_csv(path, index=False)
        for seed in params.seeds:
            layout.checkpoint(name, seed).unlink(missing_ok=True)


def check(params: Params) -> None:
    """Puts every candidate together once, so that a wrong name is found before the first training begins.

    Raises:
        InputError: naming all that is wrong.
    """
    faults = []
    for name, candidate in params.candidates.items():
        try:
            settings = params.training_of(name)
            choose_device(settings.device)
            side = _side(candidate)
            with torch.device("meta"):  # shapes alone: weights for images of that side may fill the memory
                network = _assemble(name, candidate, (side, side, 1), classes=2, mean=(0.5,), std=(0.5,))
            build_optimizer(settings.optimizer, network.parameters(), learning_rate=1, weight_decay=0, momentum=0)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))


def _side(candidate: Candidate) -> int:
    """A side of images that the candidate can take: all that cuts, halves or shares out divides it."""
    side: int = candidate.patch_size * 2 ** len(candidate.channels)
    if candidate.stem == "patches" and candidate.scan in OF_PATCHES:
        side *= candidate.patch_size
    if candidate.layer == "none" and candidate.readout == "multihead":
        side *= candidate.heads
    return side


def _assemble(name: str, candidate: Candidate, shape: Sequence[int], **rest: Any) -> Classifier:
    try:
        return assemble(**candidate.architecture, input_shape=shape, **rest)
    except InputError as error:
        raise InputError(f"params.yaml: candidates.{name}.{error}") from None


def train_once(layout: Layout, training: Training, folder: Path, params: Params) -> None:
    """One training with one seed, from its checkpoint or its start, into a bundle."""
    from recursight.tracking import live

    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    checkpoint = layout.checkpoint(training.name, training.seed)
    model = training.build()
    with live(layout, params, training.card, folder, defer=in_a_flow()) as tracker:
        reached = _train(model, training, checkpoint, tracker)
        # Shown where training begins: there each step's pull is the architecture's own.
        norms = gradient_norms(training.build(), *_probe(training))
        model.load_state_dict(reached.best_weights)
        save_bundle(folder, model, **training.card, best_epoch=reached.best_epoch)
        history = pd.DataFrame([asdict(epoch) for epoch in reached.history])
        history.to_csv(folder / "history.csv", index=False)
        pd.DataFrame([asdict(norm) for norm in norms]).to_csv(folder / "gradient_norms.csv", index=False)
        write_json(folder / "training.json", _account(layout, training, reached, started_at))


def _train(model: Classifier, training: Training, checkpoint: Path, tracker: Any) -> Progress:
    """Trains until the epochs or the patience are used up; after each epoch, all of it is on disk."""
    settings = training.settings
    optimizer = build_optimizer(
        settings.optimizer,
        model.parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
    )
    reached = load_checkpoint(checkpoint, training.digest, model, optimizer)
    done = len(reached.history)
    if done:
        print(f"train {training.name}: goes on after epoch {done}", flush=True)
    if reached.finished:
        return reached
    train, validation = training.batches("train"), training.batches("validation")
    shapes = {"steps_per_epoch": len(train), "epochs": settings.epochs, "warmup_epochs": settings.warmup_epochs}
    epochs = fit(
        model,
        train,
        validation,
        optimizer=optimizer,
        learning_rate=lambda step: learning_rate_at(
            step, highest=settings.learning_rate, schedule=settings.schedule, **shapes
        ),
        augment=lambda images, generator: augment(images, **settings.augment.model_dump(), generator=generator),
        clip_norm=settings.clip_norm,
        label_smoothing=settings.label_smoothing,
        seed=training.seed,
        epochs=range(done + 1, settings.epochs + 1),
    )
    with progress(f"train {training.name}", settings.epochs) as report, _named(training.name):
        for epoch in epochs:
            reached.history.append(epoch)
            best = min(reached.history, key=lambda past: past.validation_loss)
            if best is epoch:
                reached.best_epoch = epoch.epoch
                reached.best_weights = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
            if epoch.epoch == settings.epochs:
                reached.finished = "epochs"
            elif settings.patience and epoch.epoch - reached.best_epoch >= settings.patience:
                reached.finished = "patience"
            save_checkpoint(checkpoint, training.digest, reached, model, optimizer)
            tracker.log_epoch(asdict(epoch))
            report(settings.epochs if reached.finished else epoch.epoch, _remark(epoch))
            if reached.finished:
                break
    return reached


def _remark(epoch: Epoch) -> str:
    return (
        f"loss {epoch.train_loss:.4f}  validation {epoch.validation_accuracy:.2%}  "
        f"{epoch.images_per_second:,.0f} images/s"
    )


def _probe(training: Training) -> tuple[torch.Tensor, torch.Tensor]:
    """The first training images and their labels, on the device."""
    rows = training.store.indices("train")[:PROBE_IMAGES]
    images = torch.from_numpy(training.store.images[rows, 0])
    labels = torch.from_numpy(training.store.labels("train")[:PROBE_IMAGES])
    return images.to(training.device), labels.to(training.device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _account(layout: Layout, training: Training, reached: Progress, started_at: str) -> dict[str, Any]:
    """What two equal trainings differ in."""
    speeds = sorted(epoch.images_per_second for epoch in reached.history)
    return {
        "seconds": sum(epoch.seconds for epoch in reached.history),
        "images_per_second": speeds[len(speeds) // 2],
        "epochs": len(reached.history),
        "stopped": reached.finished,
        "device": _device_name(training.device),
        "threads": training.settings.threads,
        "torch": torch.__version__,
        "kernels": training.kernels,
        **machine(),
        "started_at": started_at,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(layout.root),
    }


def _history(bundle: Path, seed: int) -> pd.DataFrame:
    history = pd.read_csv(bundle / "history.csv")
    history.insert(0, "seed", seed)
    return history


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Opens a divergence's sentence with the candidate's name."""
    try:
        yield
    except Diverged as error:
        raise Diverged(f"{name}: {error} The last good epoch's checkpoint is kept.") from None


@contextlib.contextmanager
def _slot(device: torch.device) -> Iterator[None]:
    """One training at a time on a GPU, whoever started it; a lock of the system's, so that no kill can leave it."""
    if device.type == "cpu":
        yield
        return
    folder = Path(tempfile.gettempdir())
    with FileLock(folder / f"recursight-{device.type}-{device.index or 0}.lock", mode=0o666):
        yield
