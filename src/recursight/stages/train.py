"""The stage train@NAME: a candidate of params.yaml and the store become a bundle per seed."""

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.executors.local import exclusive_lock
from recursight.files import replacing, write_json
from recursight.layout import Layout
from recursight.models.assembly import Network, workable_side
from recursight.models.clips import ClipNetwork
from recursight.params import Params, load
from recursight.progress import progress
from recursight.provenance import git_commit, machine
from recursight.tracking import live
from recursight.training.devices import choose_device
from recursight.training.loop import Epoch
from recursight.training.optimizers import build_optimizer
from recursight.training.trainer import Settings, Trainer, build, require_parts, training_loss


def run(layout: Layout, name: str, *, defer_tracking: bool = False) -> None:
    """Trains a candidate once per seed, continuing from checkpoints where there are any.

    Args:
        layout: of the project.
        name: of the candidate.
        defer_tracking: whether the caller sends the results to the tracking store.

    Raises:
        InputError: if parameters are wrong, the store is missing, training diverges or is under way elsewhere.
    """
    params = load(layout.params)
    params.candidate(name)
    torch.set_num_threads(params.training_of(name).threads)
    device = choose_device(params.execution.device)
    with exclusive_lock(layout, f"train@{name}"), _slot(device):
        store = open_store(layout.store)
        with replacing(layout.candidate(name)) as folder:
            histories = []
            for seed in params.seeds:
                bundle = folder / f"seed-{seed}"
                _train(layout, params, make_trainer(layout, params, name, seed, store, device), bundle, defer_tracking)
                histories.append(pd.read_csv(bundle / "history.csv").assign(seed=seed))
        with replacing(layout.history_plot(name)) as path:
            history = pd.concat(histories)
            history[["seed", *history.columns.drop("seed")]].to_csv(path, index=False)
        for seed in params.seeds:
            layout.checkpoint(name, seed).unlink(missing_ok=True)


def make_trainer(layout: Layout, params: Params, name: str, seed: int, store: Store, device: torch.device) -> Trainer:
    """The trainer of a candidate, with what it has trained before."""
    return Trainer(
        name=name,
        architecture=params.candidate(name).architecture,
        store=store,
        task=params.built_task,
        task_settings=params.task.model_dump(),
        settings=Settings(**params.training_of(name).model_dump()),
        seed=seed,
        device=device,
        memory_fraction=params.execution.memory_fraction,
        checkpoint=layout.checkpoint(name, seed),
    )


def check(params: Params) -> None:
    """Builds every candidate once, so that a wrong name is found before the first training begins.

    Raises:
        InputError: naming all that is wrong.
    """
    faults = []
    for name, candidate in params.candidates.items():
        try:
            settings = params.training_of(name)
            choose_device(params.execution.device)
            training_loss(params.built_task, settings.label_smoothing)
            with torch.device("meta"):  # shapes alone: weights for images of that side may fill the memory
                network = _network_of(name, candidate.architecture)
            require_parts(name, network, settings.truncate)
            build_optimizer(settings.optimizer, network.parameters(), learning_rate=1, weight_decay=0, momentum=0)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))


def _network_of(name: str, architecture: dict[str, Any]) -> Network | ClipNetwork:
    """A candidate's network, for images of a size that it can read."""
    try:
        side = workable_side(architecture)
    except InputError as error:
        raise InputError(f"params.yaml: candidates.{name}.{error}") from None
    return build(name, architecture, input_shape=(side, side, 1), outputs=2, mean=(0.5,), std=(0.5,))


def _train(layout: Layout, params: Params, trainer: Trainer, folder: Path, defer_tracking: bool) -> None:
    """Trains with one seed, into a bundle."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    title, epochs = f"train {trainer.name}", trainer.settings.epochs
    if done := len(trainer.state.history):
        print(f"{title}: continues after epoch {done}", flush=True)
    with live(layout, params, trainer.card, folder, defer=defer_tracking) as tracker:
        with progress(title, epochs) as report:
            for epoch in trainer.epochs():
                tracker.log_epoch(epoch.row)
                report(epochs if trainer.finished else epoch.epoch, _remark(epoch, trainer))
        trainer.save(folder)
        write_json(folder / "training.json", _account(layout, trainer, started_at))


def _remark(epoch: Epoch, trainer: Trainer) -> str:
    metrics, found = trainer.task.metrics, epoch.validation
    curves = [f"{name} {metrics[name].text(found[name])}" for name in found if name in metrics]
    unit = "images" if trainer.store.stills else "frames"
    return "  ".join(
        [
            f"loss {epoch.train['loss']:.4f}",
            f"validation {epoch.validation['loss']:.4f}",
            *curves,
            f"{epoch.images_per_second:,.0f} {unit}/s",
        ]
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _account(layout: Layout, trainer: Trainer, started_at: str) -> dict[str, Any]:
    """What two equal trainings differ in."""
    history = trainer.state.history
    speeds = sorted(epoch.images_per_second for epoch in history)
    return {
        "seconds": sum(epoch.seconds for epoch in history),
        "images_per_second": speeds[len(speeds) // 2],
        "epochs": len(history),
        "stopped": trainer.state.finished,
        "device": _device_name(trainer.device),
        "threads": trainer.settings.threads,
        "torch": torch.__version__,
        "kernels": trainer.kernels,
        **machine(),
        "started_at": started_at,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(layout.root),
    }


@contextlib.contextmanager
def _slot(device: torch.device) -> Iterator[None]:
    """One training at a time on a GPU, whoever started it; a lock of the system's, so that no kill can leave it."""
    if device.type == "cpu":
        yield
        return
    folder = Path(tempfile.gettempdir())
    with FileLock(folder / f"recursight-{device.type}-{device.index or 0}.lock", mode=0o666):
        yield
