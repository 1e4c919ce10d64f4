"""The loop learns, repeats itself exactly, and says where it diverges."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from recursight.tasks import Batch
from recursight.training.loop import Diverged, score

from .conftest import TASK, Trainable

Build = Callable[..., Trainable]


def weights(part: Trainable) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in part.model.parameters()]


def test_learns(trainable: Build) -> None:
    epochs = list(trainable().fit(range(1, 11)))
    assert [epoch.epoch for epoch in epochs] == list(range(1, 11))
    assert epochs[-1].train["loss"] < epochs[0].train["loss"] / 3
    assert epochs[-1].validation["accuracy"] > 0.95
    assert all(epoch.images_per_second > 0 and epoch.gradient_norm > 0 for epoch in epochs)


def test_two_trainings_with_one_seed_end_with_identical_weights(trainable: Build) -> None:
    one, other, another = trainable(), trainable(), trainable()
    figures = [
        [(epoch.train, epoch.validation) for epoch in part.fit(range(1, 4), seed=seed)]
        for part, seed in ((one, 5), (other, 5), (another, 6))
    ]
    assert figures[0] == figures[1] != figures[2]
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(another), strict=True))


def test_stops_when_nobody_iterates(trainable: Build) -> None:
    part = trainable()
    epochs = part.fit(range(1, 100))
    next(epochs)
    after_one = weights(part)
    epochs.close()
    assert all(torch.equal(a, b) for a, b in zip(after_one, weights(part), strict=True))


def test_figures_are_those_of_the_model(trainable: Build) -> None:
    part = trainable()
    (epoch,) = part.fit(range(1, 2))
    logits = part.model.eval()(part.validation.on_device)
    loss = torch.nn.functional.cross_entropy(logits, part.validation.targets)
    accuracy = (logits.argmax(dim=1) == part.validation.targets).float().mean()
    assert epoch.validation["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert epoch.validation["accuracy"] == pytest.approx(accuracy.item())
    assert score(part.model, part.validation, TASK.loss, TASK.curves) == epoch.validation
    assert list(epoch.row)[:5] == ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


def test_clipping_bounds_what_a_step_changes(trainable: Build) -> None:
    part = trainable("sgd")
    before = weights(part)
    steps = len(part.train)
    (epoch,) = part.fit(range(1, 2), clip_norm=1e-3, learning_rate=lambda step: 1.0)
    moved = math.sqrt(sum((a - b).square().sum().item() for a, b in zip(before, weights(part), strict=True)))
    decay = 0.01 * math.sqrt(sum(a.square().sum().item() for a in before)) * steps
    assert epoch.gradient_norm > 1e-3  # reported before clipping
    assert 0 < moved <= steps * 1e-3 + decay


def test_the_learning_rate_follows_its_schedule(trainable: Build) -> None:
    part = trainable()
    asked: list[int] = []
    epochs = list(part.fit(range(2, 4), learning_rate=lambda step: asked.append(step) or 0.001 * (step + 1)))
    steps = len(part.train)
    assert asked == list(range(steps, 3 * steps))
    assert epochs[-1].learning_rate == pytest.approx(0.001 * 3 * steps)


def test_divergence_names_epoch_and_step(trainable: Build) -> None:
    part = trainable("sgd")
    poisoned = 3

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal poisoned
        poisoned -= 1
        return replace(batch, inputs=batch.inputs.float() * (float("nan") if poisoned == 0 else 1 / 255))

    with pytest.raises(Diverged, match=r"epoch 1, step 3 of 7"):
        list(part.fit(range(1, 3), augment=augment))


def test_a_learning_rate_that_is_far_too_high_is_a_divergence(trainable: Build) -> None:
    with pytest.raises(Diverged, match=r"loss (nan|inf).*lower train.learning_rate"):
        list(trainable("sgd").fit(range(1, 30), clip_norm=0.0, learning_rate=lambda step: 1e30))


def test_a_stream_trains_to_the_same_weights(trainable) -> None:
    resident, streamed = trainable(memory_fraction=1.0), trainable(memory_fraction=0.0)
    assert (resident.train.resident, streamed.train.resident) == (True, False)
    losses = [[epoch.validation for epoch in one.fit(range(1, 4))] for one in (resident, streamed)]
    assert losses[0] == losses[1]
    for one, other in zip(resident.model.parameters(), streamed.model.parameters(), strict=True):
        assert torch.equal(one, other)
