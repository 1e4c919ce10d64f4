"""The training loop: a generator of epochs. It knows no paths and no trackers; to stop it, cease to iterate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recursight.errors import InputError
from recursight.training.batches import Batches
from recursight.training.step import make_step


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training split gave; a row of history.csv.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the epoch's batches, with dropout, augmentation and label smoothing.
        train_accuracy: likewise.
        validation_loss: cross-entropy after the epoch, without any of these.
        validation_accuracy: likewise.
        learning_rate: of the epoch's last step.
        gradient_norm: mean over the steps, before clipping.
        images_per_second: of the training part.
        seconds: of the whole epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    seconds: float


class Diverged(InputError):
    """The loss or a gradient is no longer a finite number."""


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches,
    *,
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    augment: Callable[[Tensor, torch.Generator], Tensor],
    clip_norm: float,
    label_smoothing: float,
    seed: int,
    epochs: range,
) -> Iterator[Epoch]:
    """Trains in place, and yields after each epoch.

    Every random draw of an epoch follows from the seed and the epoch's number, so that a training that goes on from
    a checkpoint makes the draws that an undisturbed one makes.

    Args:
        model: (B, H, W, C) images to logits, on the batches' device.
        train: the training split.
        validation: the validation split.
        optimizer: over the model's parameters.
        learning_rate: of a step, counted from 0 over the whole training.
        augment: changes a batch of training images.
        clip_norm: largest norm of a step's gradient (Pascanu et al., 2013, arXiv:1211.5063); 0 for none.
        label_smoothing: weight spread over all classes.
        seed: of order, augmentation and dropout.
        epochs: numbers of the epochs to train.

    Raises:
        Diverged: naming epoch and step, if the loss or the gradient stops being finite.
    """
    step = make_step(model, optimizer, clip_norm=clip_norm, label_smoothing=label_smoothing)
    losses, norms = torch.zeros(2, len(train), device=train.device)
    for epoch in epochs:
        started = time.perf_counter()
        draw = seed * 1_000_003 + epoch
        torch.manual_seed(draw)
        generator = torch.Generator().manual_seed(draw)
        step.correct.zero_()
        model.train()
        # Nothing in these steps waits for the device: figures stay there and are read once an epoch.
        for position, (images, labels) in enumerate(train.shuffled(draw)):
            rate = learning_rate((epoch - 1) * len(train) + position)
            step(augment(images, generator), labels, rate)
            losses[position], norms[position] = step.loss, step.norm
        finite = (losses.isfinite() & norms.isfinite()).tolist()
        if not all(finite):
            first = finite.index(False)
            raise Diverged(
                f"training diverged: loss {losses[first].item()}, gradient norm {norms[first].item()} at epoch "
                f"{epoch}, step {first + 1} of {len(train)}; lower train.learning_rate or set train.clip_norm."
            )
        train_seconds = time.perf_counter() - started
        validation_loss, validation_accuracy = score(model, validation)
        yield Epoch(
            epoch=epoch,
            train_loss=losses.mean().item(),
            train_accuracy=step.correct.item() / train.count,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=rate,
            gradient_norm=norms.mean().item(),
            images_per_second=train.count / train_seconds,
            seconds=time.perf_counter() - started,
        )


@torch.inference_mode()
def score(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over a split, in eval mode."""
    model.eval()
    loss = torch.zeros((), device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    for images, labels in batches.in_order():
        with torch.autocast(batches.device.type, torch.bfloat16, enabled=batches.device.type == "cuda"):
            logits = model(images)
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (logits.argmax(dim=-1) == labels).sum()
    return loss.item() / batches.count, correct.item() / batches.count
