"""A bundle is rebuilt from its files alone, and only from the files that its card names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recursight.errors import InputError
from recursight.models.assembly import assemble
from recursight.models.bundle import CARD, WEIGHTS, Card, load_bundle, read_card, save_bundle

ARCHITECTURE: dict[str, Any] = {
    "stem": {"conv": {"channels": [4]}},
    "scan": "rows",
    "layer": "gru",
    "hidden": [5],
    "bidirectional": True,
    "reverse": False,
    "dropout": 0.1,
    "readout": "attention",
}


def bundle(folder: Path, seed: int = 0) -> tuple[torch.nn.Module, Card]:
    torch.manual_seed(seed)
    model = assemble(ARCHITECTURE, input_shape=[8, 8, 1], outputs=2, mean=[0.1], std=[0.2])
    card = save_bundle(
        folder,
        model,
        candidate="gru",
        seed=seed,
        architecture=ARCHITECTURE,
        task={"name": "classification"},
        vocabulary=["cat", "dog"],
        outputs=2,
        input_shape=[8, 8, 1],
        mean=[0.1],
        std=[0.2],
        training={"epochs": 1},
        training_digest="t",
        data_digest="d",
        best_epoch=1,
    )
    return model, card


def test_round_trip(tmp_path: Path) -> None:
    model, card = bundle(tmp_path / "one")
    loaded, read = load_bundle(tmp_path / "one")
    assert read == card
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())
    batch = torch.randint(0, 256, (3, 8, 8, 1), dtype=torch.uint8)
    assert not loaded.training
    assert torch.equal(loaded(batch), model.eval()(batch))


def test_equal_bundles_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    first, again, other = (bundle(tmp_path / str(n), seed)[1] for n, seed in enumerate((0, 0, 1)))
    assert first.digest == again.digest != other.digest


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    bundle(tmp_path / "one")
    bundle(tmp_path / "two", seed=1)
    (tmp_path / "two" / WEIGHTS).replace(tmp_path / "one" / WEIGHTS)
    with pytest.raises(InputError, match=r"dvc checkout"):
        load_bundle(tmp_path / "one")


def test_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no trained candidate"):
        read_card(tmp_path)


def test_nothing_in_a_bundle_is_pickled(tmp_path: Path) -> None:
    bundle(tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {CARD, WEIGHTS}
