"""Clips are read frame by frame and then over time; their length, and what else is in the batch, changes no answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.models.assembly import assemble
from recursight.models.bundle import load_bundle
from recursight.models.clips import ClipNetwork
from recursight.params import Candidate, Train
from recursight.tasks.classification import Classification
from recursight.training.trainer import Settings, Trainer
from recursight.training.windows import cut, of_parts
from tests.clips import write_store

OVER_TIME = [
    {"layer": "gru", "hidden": 6, "readout": "last"},
    {"layer": "lstm", "hidden": [6, 5], "readout": "mean"},
    {"layer": "elman", "hidden": 6, "readout": "max"},
    {"layer": "gru", "hidden": 6, "bidirectional": True, "readout": "last"},
    {"layer": "lstm", "hidden": [6, 4], "bidirectional": True, "readout": "attention"},
    {"layer": "qrnn", "hidden": 8, "readout": {"multihead": {"heads": 2}}},
    {"layer": "none", "readout": "middle"},
    {"layer": "none", "readout": "mean"},
    {"layer": "gru", "hidden": 6, "readout": "every"},
    {"layer": "gru", "hidden": 6, "bidirectional": True, "readout": "every"},
]


def network(over_time: dict[str, Any]) -> ClipNetwork:
    torch.manual_seed(0)
    candidate = Candidate(layer="gru", hidden=[5], over_time=over_time)
    made = assemble(candidate.architecture, input_shape=[6, 5, 1], outputs=3, mean=[0.4], std=[0.3])
    assert isinstance(made, ClipNetwork)
    return made.eval()


@pytest.fixture(scope="module")
def clips_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(write_store(tmp_path_factory.mktemp("clips") / "store"))


@pytest.fixture
def trainer(clips_store: Store) -> Callable[..., Trainer]:
    def make(over_time: dict[str, Any] | None, store: Store = clips_store, **settings: Any) -> Trainer:
        return Trainer(
            name="moving",
            architecture=Candidate(layer="gru", hidden=[12], over_time=over_time).architecture,
            store=store,
            task=Classification(),
            task_settings={"name": "classification"},
            settings=Settings(**Train(learning_rate=0.01, batch_size=16, **settings).model_dump()),
            seed=0,
            device=torch.device("cpu"),
        )

    return make


@pytest.mark.parametrize("over_time", OVER_TIME, ids=lambda each: f"{each['layer']}-{each['readout']}")
def test_a_clip_gets_the_same_answer_alone_and_beside_longer_ones(over_time: dict[str, Any]) -> None:
    model = network(over_time)
    lengths = [3, 9, 1, 6]
    clips = [torch.randint(0, 256, (length, 6, 5, 1), dtype=torch.uint8) for length in lengths]
    with torch.no_grad():
        together = model(torch.cat(clips), torch.tensor(lengths))
        alone = [model(clip, torch.tensor([len(clip)])) for clip in clips]
        read = [model.read(clip)[0] for clip in clips]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together, torch.cat(read) if model.every else torch.stack(read))


@pytest.mark.parametrize("over_time", OVER_TIME[-2:])
def test_a_stream_is_read_in_parts_where_that_is_possible(over_time: dict[str, Any]) -> None:
    model = network(over_time)
    stream = torch.randint(0, 256, (9, 6, 5, 1), dtype=torch.uint8)
    with torch.no_grad():
        whole, _ = model.read(stream)
        first, state = model.read(stream[:4])
        if model.causal:
            second, _ = model.read(stream[4:], state)
            torch.testing.assert_close(whole, torch.cat([first, second]))
        else:
            with pytest.raises(ValueError, match="whole"):
                model.read(stream[4:], state)


def test_recurrence_over_time_sees_a_movement_that_one_frame_cannot(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    accuracy = {}
    for name, over_time in {
        "gru": {"layer": "gru", "hidden": [16], "readout": "mean"},
        "frame": {"layer": "none", "readout": "middle"},
    }.items():
        one = trainer(over_time, epochs=30, patience=0)
        epochs = list(one.epochs())
        card = one.save(tmp_path / name)
        accuracy[name] = max(epoch.validation["accuracy"] for epoch in epochs)
    assert accuracy["gru"] >= 0.95
    assert accuracy["frame"] <= 0.8
    assert (card.frames, card.rate) == (6, 10.0)
    assert isinstance(load_bundle(tmp_path / "gru")[0], ClipNetwork)


def test_what_does_not_fit_is_refused(trainer: Callable[..., Trainer], digits_store: Path) -> None:
    with pytest.raises(InputError, match=r"candidates.moving: the store holds clips; add over_time"):
        trainer(None)
    with pytest.raises(InputError, match=r"over_time: the store holds single images; remove this key"):
        trainer({"layer": "gru"}, store=open_store(digits_store))
    with pytest.raises(InputError, match=r"over_time.readout: this task needs one vector a clip"):
        trainer({"layer": "gru", "readout": "every"})
    with pytest.raises(InputError, match=r"over_time.layer: 'rnn2d' reads grids"):
        trainer({"layer": "rnn2d"})
    with pytest.raises(InputError, match=r"over_time.readout: 'middle' reads one frame alone"):
        trainer({"layer": "gru", "readout": "middle"})


def test_windows_cover_all_frames_and_overlap() -> None:
    lengths = np.array([10, 3, 4, 11])
    windows = cut(lengths, 4, 2)
    assert windows.length.tolist() == [4] * 4 + [3] + [4] + [4] * 5
    assert windows.offset.tolist() == [0, 2, 4, 6, 0, 0, 0, 2, 4, 6, 7]
    assert windows.example.tolist() == [0] * 4 + [1, 2] + [3] * 5
    packed = np.arange(lengths.sum())
    assert of_parts(packed, lengths, windows)[-4:].tolist() == [24, 25, 26, 27]
    assert cut(lengths, 0, 0).length.tolist() == lengths.tolist()
