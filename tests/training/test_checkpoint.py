"""A training that goes on from a checkpoint ends with the weights of an undisturbed one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recursight.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from recursight.training.optimizers import OPTIMIZERS

from .conftest import Trainable

Build = Callable[..., Trainable]


def save(path: Path, part: Trainable, state: TrainingState, key: str = "key") -> None:
    save_checkpoint(path, key, state, part.model, part.optimizer)


def load(path: Path, part: Trainable, key: str = "key") -> TrainingState:
    return load_checkpoint(path, key, part.model, part.optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_equals_never_having_stopped(trainable: Build, tmp_path: Path, optimizer: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    undisturbed, stopped, resumed = trainable(optimizer), trainable(optimizer), trainable(optimizer)
    figures = [epoch.train for epoch in undisturbed.fit(range(1, 5))]
    save(path, stopped, TrainingState(list(stopped.fit(range(1, 3)))))
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.zero_()
    state = load(path, resumed)
    going_on = [epoch.train for epoch in resumed.fit(range(len(state.history) + 1, 5))]
    assert [epoch.train for epoch in state.history] + going_on == figures
    for one, other in zip(undisturbed.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_all_that_was_known_is_known_again(trainable: Build, tmp_path: Path) -> None:
    part = trainable()
    best = {name: value + 1 for name, value in part.model.state_dict().items()}
    state = TrainingState(list(part.fit(range(1, 3))), best_epoch=1, best_weights=best, finished="patience")
    save(tmp_path / "c", part, state)
    again = load(tmp_path / "c", trainable())
    assert (again.history, again.best_epoch, again.finished) == (state.history, 1, "patience")
    assert again.best_weights.keys() == best.keys()
    assert all(torch.equal(again.best_weights[name], best[name]) for name in best)


@pytest.mark.parametrize("damage", ["foreign", "missing", "truncated", "empty", "noise"])
def test_what_is_no_checkpoint_of_this_training_is_not_taken(trainable: Build, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    part = trainable()
    save(path, part, TrainingState(list(part.fit(range(1, 2)))))
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage != "foreign":
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "noise": b"\xff" * 500}[damage])
    fresh, untouched = trainable(), trainable()
    assert load(path, fresh, key="other" if damage == "foreign" else "key") == TrainingState()
    for one, other in zip(fresh.model.parameters(), untouched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_saving_leaves_one_whole_file(trainable: Build, tmp_path: Path) -> None:
    part = trainable()
    for _ in range(2):
        save(tmp_path / "deep" / "c.safetensors", part, TrainingState())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["c.safetensors"]
