"""Each optimizer goes down, by its own rule; the learning rate rises, holds and falls."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from recursight.errors import InputError
from recursight.training.optimizers import OPTIMIZERS, build_optimizer, learning_rate_at


def step_from(name: str, **changes: float) -> float:
    """What a weight of 1 is after one step on a gradient of 2, at a learning rate of 0.1."""
    weight = torch.nn.Parameter(torch.ones(1))
    settings = {"learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9} | changes
    optimizer = build_optimizer(name, [weight], **settings)
    (2 * weight).sum().backward()
    optimizer.step()
    return weight.item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", 1 - 0.1 * 2),
        ("momentum", 1 - 0.1 * 2),
        ("adagrad", 1 - 0.1),
        ("rmsprop", 1 - 0.1 * 2 / (0.01 * 4) ** 0.5),  # the running mean of squares starts at 1 % of the first
        ("adam", 1 - 0.1),
        ("adamw", 1 - 0.1),
    ],
)
def test_first_step(name: str, expected: float) -> None:
    assert step_from(name) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_every_optimizer_is_tested_above() -> None:
    assert {row[0] for row in test_first_step.pytestmark[0].args[1]} == set(OPTIMIZERS)


def test_weight_decay_is_decoupled_in_adamw_only() -> None:
    assert step_from("adamw", weight_decay=0.5) == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1, rel=1e-5)
    assert step_from("adam", weight_decay=0.5) == pytest.approx(1 - 0.1, rel=1e-5)


def test_momentum_carries_on() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer("momentum", [weight], learning_rate=0.1, weight_decay=0, momentum=0.5)
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 - 0.15)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("sgd", lambda weights, **rest: torch.optim.SGD(weights, fused=True, **rest)),
        ("momentum", lambda weights, **rest: torch.optim.SGD(weights, momentum=0.9, fused=True, **rest)),
        ("adagrad", torch.optim.Adagrad),
        ("rmsprop", lambda weights, **rest: torch.optim.RMSprop(weights, momentum=0.9, **rest)),
        ("adam", lambda weights, **rest: torch.optim.Adam(weights, fused=True, **rest)),
        ("adamw", lambda weights, **rest: torch.optim.AdamW(weights, fused=True, **rest)),
    ],
)
def test_the_steps_are_those_of_torch(name: str, own: Any) -> None:
    def after_steps(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> torch.Tensor:
        for step in range(5):
            optimizer.zero_grad()
            (weight * (weight + step)).sum().backward()
            optimizer.step()
        return weight.detach()

    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    built = build_optimizer(name, [ours], learning_rate=0.01, weight_decay=0.1, momentum=0.9)
    assert torch.equal(after_steps(built, ours), after_steps(own([theirs], lr=0.01, weight_decay=0.1), theirs))


def test_a_training_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from recursight.training.optimizers import OPTIMIZERS, build_optimizer
for name in OPTIMIZERS:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(name, [weight], learning_rate=0.1, weight_decay=0, momentum=0.9)
    weight.sum().backward()
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules, "it takes longer to import than torch"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(InputError, match=r"train.optimizer: 'admaw' is unknown; did you mean 'adamw'\?"):
        build_optimizer("admaw", [], learning_rate=1, weight_decay=0, momentum=0)


def rates(schedule: str, warmup_epochs: int, epochs: int = 4) -> list[float]:
    return [
        learning_rate_at(
            step, highest=1.0, schedule=schedule, steps_per_epoch=10, epochs=epochs, warmup_epochs=warmup_epochs
        )
        for step in range(10 * epochs)
    ]


def test_warm_up_is_linear_and_reaches_the_highest() -> None:
    constant = rates("constant", warmup_epochs=2)
    assert constant[:20] == pytest.approx([(n + 1) / 20 for n in range(20)])
    assert constant[20:] == [1.0] * 20


def test_cosine_falls_from_the_highest_to_nearly_nothing() -> None:
    cosine = rates("cosine", warmup_epochs=0)
    assert cosine[0] == 1.0
    assert cosine[20] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] < 0.01


def test_a_warm_up_as_long_as_the_training_leaves_an_epoch() -> None:
    assert max(rates("cosine", warmup_epochs=9, epochs=2)) == 1.0
    assert rates("constant", warmup_epochs=9, epochs=1) == [1.0] * 10
