"""The training loop: a generator of epochs. It knows no paths and no trackers; to stop it, cease to iterate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.tasks import Batch
from recursight.training.batches import Batches
from recursight.training.step import Curves, Loss, add_to, make_step


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        epoch: counted from 1.
        train: `loss`, and the means of the task's curves, over the epoch's batches: with dropout, augmentation and the
            loss's options.
        validation: the same after the epoch, without any of these.
        learning_rate: of the epoch's last step.
        gradient_norm: mean over the steps, before clipping.
        images_per_second: images, or frames of clips, of the training part.
        seconds: of the whole epoch.
    """

    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    seconds: float

    @property
    def row(self) -> dict[str, float]:
        """A row of history.csv: epoch, train_loss, further train_*, validation_loss, further validation_*, the rest."""
        return {
            "epoch": self.epoch,
            **{f"train_{name}": value for name, value in self.train.items()},
            **{f"validation_{name}": value for name, value in self.validation.items()},
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
        }


class Diverged(InputError):
    """The loss or a gradient is no longer a finite number."""


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches,
    *,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    validation_loss: Loss,
    curves: Curves,
    learning_rate: Callable[[int], float],
    augment: Callable[[Batch, torch.Generator], Batch],
    clip_norm: float,
    truncate: int = 0,
    seed: int,
    epochs: range,
) -> Iterator[Epoch]:
    """Trains in place, and yields after each epoch.

    Every random draw of an epoch follows from the seed and the epoch's number, so that a training that goes on from
    a checkpoint makes the draws that an undisturbed one makes.

    Args:
        model: inputs to outputs, on the batches' device.
        train: the training split.
        validation: the validation split.
        optimizer: over the model's parameters.
        loss: what is minimised, one value an example.
        validation_loss: what is measured after each epoch, one value an example.
        curves: further values an example, whose means the epochs report.
        learning_rate: of a step, counted from 0 over the whole training.
        augment: changes the frames of a training batch.
        clip_norm: largest norm of a step's gradient (Pascanu et al., 2013, arXiv:1211.5063); 0 for none.
        truncate: frames through which the backward pass goes back in clips; 0 for all.
        seed: of order, augmentation and dropout.
        epochs: numbers of the epochs to train.

    Raises:
        Diverged: naming epoch and step, if the loss or the gradient stops being finite.
    """
    step = make_step(model, optimizer, loss=loss, curves=curves, clip_norm=clip_norm, truncate=truncate)
    losses, norms = torch.zeros(2, len(train), device=train.device)
    for epoch in epochs:
        started = time.perf_counter()
        draw = seed * 1_000_003 + epoch
        torch.manual_seed(draw)
        generator = torch.Generator().manual_seed(draw)
        model.train()
        for total in step.totals.values():
            total.zero_()
        rate = 0.0
        # Losses and norms stay on the device and are read once an epoch.
        for position, batch in enumerate(train.shuffled(draw)):
            rate = learning_rate((epoch - 1) * len(train) + position)
            step(augment(batch, generator), rate)
            losses[position], norms[position] = step.loss, step.norm
        finite = (losses.isfinite() & norms.isfinite()).tolist()
        if not all(finite):
            first = finite.index(False)
            raise Diverged(
                f"training diverged: loss {losses[first].item()}, gradient norm {norms[first].item()} at epoch "
                f"{epoch}, step {first + 1} of {len(train)}; lower train.learning_rate or set train.clip_norm."
            )
        train_seconds = time.perf_counter() - started
        means = {name: total.item() / train.count for name, total in step.totals.items()}
        yield Epoch(
            epoch=epoch,
            train={"loss": losses.mean().item()} | means,
            validation=score(model, validation, validation_loss, curves),
            learning_rate=rate,
            gradient_norm=norms.mean().item(),
            images_per_second=train.frame_count / train_seconds,
            seconds=time.perf_counter() - started,
        )


@torch.inference_mode()
def score(model: nn.Module, batches: Batches, loss: Loss, curves: Curves) -> dict[str, float]:
    """Means over a split, in eval mode: `loss`, and the curves by name."""
    model.eval()
    totals: dict[str, Tensor] = {}
    for batch in batches.in_order():
        with torch.autocast(batches.device.type, torch.bfloat16, enabled=batches.device.type == "cuda"):
            outputs = model(*batch.arguments)
        outputs = outputs.float()
        add_to(totals, {"loss": loss(outputs, batch), **curves(outputs, batch)})
    return {name: total.item() / batches.count for name, total in totals.items()}
