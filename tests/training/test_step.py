"""A step that is replayed does what a step does; on a GPU, as a CUDA graph."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from recursight.tasks import Batch
from recursight.training.optimizers import build_optimizer
from recursight.training.step import WARM_UP, ReplayedStep, Step, Work, make_step

from .conftest import TASK, Trainable

Build = Callable[..., Trainable]
SETTINGS: dict[str, Any] = {
    "clip_norm": 1.0,
    "loss": partial(TASK.loss, label_smoothing=0.1),
    "curves": TASK.curves,
}


def epochs_of(step: Step, part: Trainable, count: int = 2) -> list[Tensor]:
    """Trains, at a rate that changes with every step; the weights, and what the step found."""
    torch.manual_seed(1)
    step.model.train()
    found = []
    for epoch in range(count):
        for position, batch in enumerate(part.train.shuffled(epoch)):
            step(batch, 0.001 * (position + 1))
            found += [step.loss.clone(), step.norm.clone(), step.totals["accuracy"].clone()]
    return found + [parameter.detach() for parameter in step.model.parameters()]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "momentum", "sgd", "rmsprop", "adagrad"])
def test_a_replayed_step_is_a_step(trainable: Build, optimizer: str) -> None:
    recorded: list[Work] = []
    replays = 0

    def record(work: Work) -> Work:
        recorded.append(work)

        def replay() -> None:
            nonlocal replays
            replays += 1
            work()

        return replay

    plain, other = trainable(optimizer), trainable(optimizer)
    expected = epochs_of(Step(plain.model, plain.optimizer, **SETTINGS), plain)
    replayed = epochs_of(ReplayedStep(other.model, other.optimizer, record=record, **SETTINGS), other)
    assert all(torch.equal(a, b) for a, b in zip(expected, replayed, strict=True))
    full_batches = 2 * (len(other.train) - 1)  # the last one of an epoch is smaller
    assert other.train.count % other.train.batch_size
    assert len(recorded) == 1
    assert replays == full_batches - WARM_UP


def test_what_cannot_be_recorded_is_computed_as_it_comes(trainable: Build, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, other = trainable(), trainable()
    expected = epochs_of(Step(plain.model, plain.optimizer, **SETTINGS), plain)
    found = epochs_of(ReplayedStep(other.model, other.optimizer, record=refuse, **SETTINGS), other)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert caplog.messages == [
        "training goes on without a CUDA graph: operation not permitted when stream is capturing"
    ]


def test_on_the_cpu_nothing_is_recorded(trainable: Build) -> None:
    part = trainable()
    assert type(make_step(part.model, part.optimizer, **SETTINGS)) is Step
    assert [group["lr"] for group in part.optimizer.param_groups] == [0.01]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "rmsprop"])
def test_on_a_gpu_the_graph_gives_what_single_launches_give(trainable: Build, optimizer: str) -> None:
    found = []
    for make in (Step, make_step):
        part = trainable(optimizer)
        model = part.model.cuda()
        built = build_optimizer(optimizer, model.parameters(), learning_rate=0.01, weight_decay=0.01, momentum=0.9)
        step = make(model, built, **SETTINGS)
        torch.manual_seed(1)
        model.train()
        for position, batch in enumerate(part.train.in_order()):
            if len(batch.inputs) == part.train.batch_size:
                step(Batch(batch.inputs.cuda(), None, batch.targets.cuda()), 0.001 * (position + 1))
        found.append([parameter.detach().cpu() for parameter in model.parameters()])
    assert isinstance(step, ReplayedStep)
    assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in zip(*found, strict=True))
