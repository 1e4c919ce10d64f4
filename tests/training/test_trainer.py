"""A training from Python: a candidate, a store and a task become a bundle, without any stage around them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.models.bundle import load_bundle
from recursight.params import Candidate, Train
from recursight.tasks.classification import Classification
from recursight.training.trainer import Settings, Trainer

Make = Callable[..., Trainer]


@pytest.fixture
def trainer(digits_store: Path) -> Make:
    def make(checkpoint: Path | None = None, layer: str = "gru", **settings: Any) -> Trainer:
        return Trainer(
            name="gru",
            architecture=Candidate(layer=layer, hidden=[8]).architecture,
            store=open_store(digits_store),
            task=Classification(),
            task_settings={"name": "classification"},
            settings=Settings(**Train(epochs=4, **settings).model_dump()),
            seed=1,
            device=torch.device("cpu"),
            checkpoint=checkpoint,
        )

    return make


def test_epochs_are_iterated_and_the_bundle_saved(trainer: Make, tmp_path: Path) -> None:
    one = trainer()
    epochs = list(one.epochs())
    card = one.save(tmp_path / "bundle")
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]
    assert (card.vocabulary, card.outputs, card.best_epoch) == (list("0123456789"), 10, one.state.best_epoch)
    assert pd.read_csv(tmp_path / "bundle" / "history.csv")["train_loss"].tolist() == [
        epoch.train["loss"] for epoch in epochs
    ]
    network, _ = load_bundle(tmp_path / "bundle")
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, one.state.best_weights[name])


def test_whoever_ceases_to_iterate_stops_it_and_another_continues(trainer: Make, tmp_path: Path) -> None:
    undisturbed = trainer()
    list(undisturbed.epochs())
    for _ in trainer(tmp_path / "checkpoint").epochs():
        break
    resumed = trainer(tmp_path / "checkpoint")
    assert len(resumed.state.history) == 1
    assert [epoch.epoch for epoch in resumed.epochs()] == [2, 3, 4]
    assert resumed.gradient_norms == undisturbed.gradient_norms
    for name, weights in undisturbed.network.state_dict().items():
        assert torch.equal(weights, resumed.network.state_dict()[name])
    assert list(trainer(tmp_path / "checkpoint").epochs()) == []  # nothing is left


def test_patience_ends_it(trainer: Make) -> None:
    one = trainer(patience=1, learning_rate=10.0, clip_norm=0.0, optimizer="sgd", schedule="constant", warmup_epochs=0)
    epochs = list(one.epochs())
    assert one.state.finished == "patience"
    assert len(epochs) == one.state.best_epoch + 1


def test_what_decides_weights_decides_the_digest(trainer: Make) -> None:
    assert trainer().digest == trainer().digest
    assert trainer().digest != trainer(batch_size=32).digest
    streamed = trainer()
    streamed.memory_fraction = 0.0
    assert streamed.digest == trainer().digest


def test_a_wrong_architecture_is_named_by_its_key(trainer: Make) -> None:
    with pytest.raises(InputError, match=r"^params.yaml: candidates.gru.layer: 'grru' is unknown; did you mean 'gru'"):
        trainer(layer="grru")
