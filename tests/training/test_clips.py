"""Clips are read frame by frame and then over time; their length, and what else is in the batch, changes no answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.models.assembly import assemble
from recursight.models.bundle import load_bundle
from recursight.models.clips import ClipNetwork
from recursight.params import Candidate, Train
from recursight.tasks import Batch
from recursight.tasks.classification import Classification
from recursight.training.step import make_step
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
    {"layer": "average", "readout": "every"},
    {"layer": "slstm", "hidden": [6, 4], "readout": "every"},
    {"layer": "sru", "hidden": 5, "readout": "attention"},
    {"layer": "lru", "hidden": 6, "readout": "max"},
    {"layer": "none", "readout": "every"},
    {"layer": "conv_lstm", "hidden": 4, "readout": "every"},
    {"layer": {"conv_gru2d": {"kernel": 1}}, "hidden": [4, 3], "readout": "attention"},
    {"layer": "conv_lstm", "hidden": 4, "bidirectional": True, "readout": "last"},
]
MAPS = {"stem": {"conv": {"channels": [4]}}, "scan": "grid", "layer": "none"}


def name_of(over_time: dict[str, Any]) -> str:
    return f"{over_time['layer']}-{over_time['readout']}"


each_over_time = pytest.mark.parametrize("over_time", OVER_TIME, ids=name_of)


def network(over_time: dict[str, Any]) -> ClipNetwork:
    torch.manual_seed(0)
    reads_maps = "conv" in str(over_time["layer"])
    frame = MAPS if reads_maps else {"layer": "gru", "hidden": [5]}
    candidate = Candidate(**frame, over_time=over_time)
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


@each_over_time
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


@each_over_time
def test_a_stream_is_read_in_parts_where_that_is_possible(over_time: dict[str, Any]) -> None:
    model = network(over_time)
    stream = torch.randint(0, 256, (9, 6, 5, 1), dtype=torch.uint8)
    with torch.no_grad():
        whole, end = model.read(stream)
        first, between = model.read(stream[:4], model.initial_state())
        if not model.causal:
            assert end == between == model.initial_state() == ()
            with pytest.raises(ValueError, match="whole"):
                model.read(stream[4:], (torch.zeros(1, 6),))
            return
        second, after = model.read(stream[4:], between)
        so_far, _ = model.read(stream[:4])
    torch.testing.assert_close(first, so_far)
    torch.testing.assert_close(torch.cat([first, second]) if model.every else second, whole)
    torch.testing.assert_close(after, end)
    assert [part.shape for part in model.initial_state()] == [part.shape for part in end]
    assert all(len(part) == 1 for part in end)
    assert not any(part.any() for part in model.initial_state())


def test_what_looks_at_later_frames_is_not_causal() -> None:
    causal = [network(over_time).causal for over_time in OVER_TIME]
    expected = [not each.get("bidirectional") and each["readout"] != "middle" for each in OVER_TIME]
    assert causal == expected


@pytest.mark.parametrize("over_time", [each for each in OVER_TIME if network(each).causal], ids=name_of)
def test_reading_the_next_frames_is_an_exported_program(over_time: dict[str, Any]) -> None:
    class Reader(nn.Module):
        def __init__(self, network: ClipNetwork) -> None:
            super().__init__()
            self.network = network

        def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            outputs, after = self.network.read(frames, state)
            return outputs, *after

    reader = Reader(network(over_time)).eval()
    state = reader.network.initial_state()
    stream = torch.randint(0, 256, (9, 6, 5, 1), dtype=torch.uint8)
    frames = torch.export.Dim("frames", min=1)
    dynamic = ({0: frames}, tuple({} for _ in state))[: 1 + bool(state)]
    program = torch.export.export(reader, (stream[:4], *state), dynamic_shapes=dynamic, strict=False).module()
    with torch.no_grad():
        for part in stream.split([1, 3, 5]):
            expected, found = reader(part, *state), program(part, *state)
            torch.testing.assert_close(found, expected)
            _, *state = found


@each_over_time
def test_many_frames_are_read_a_few_at_a_time(over_time: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(over_time)
    lengths = torch.tensor([5, 13, 1, 8])
    frames = torch.randint(0, 256, (27, 6, 5, 1), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(frames, lengths)
        monkeypatch.setattr("recursight.models.clips.FRAMES_AT_ONCE", 8)
        most = 0

        def count(_: nn.Module, arguments: tuple[Tensor]) -> None:
            nonlocal most
            most = max(most, len(arguments[0]))

        model.frame_network.register_forward_pre_hook(count)
        torch.testing.assert_close(model(frames, lengths), expected)
    assert 1 <= most <= 8


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


def test_layers_over_maps_want_maps() -> None:
    shapes = {"input_shape": [6, 5, 1], "outputs": 3, "mean": [0.4], "std": [0.3]}
    maps = {"layer": "conv_lstm", "hidden": 4}
    with pytest.raises(InputError, match=r"over_time.layer: 'conv_lstm' reads each frame's map; set scan to grid"):
        assemble(Candidate(layer="gru", over_time=maps).architecture, **shapes)
    with pytest.raises(InputError, match=r"layer: 'conv_lstm' reads the frames of clips; set it as over_time.layer"):
        assemble(Candidate(layer="conv_lstm", scan="grid").architecture, **shapes)


@pytest.mark.parametrize("over_time", [OVER_TIME[0], OVER_TIME[1], OVER_TIME[8]], ids=name_of)
@pytest.mark.parametrize("truncate", [9, 2])
def test_truncated_training_keeps_the_loss_and_only_shortens_the_gradient(
    over_time: dict[str, Any], truncate: int
) -> None:
    lengths = torch.tensor([3, 9, 1, 6])
    frames = torch.randint(0, 256, (19, 6, 5, 1), dtype=torch.uint8)
    every = over_time["readout"] == "every"

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        found = nn.functional.cross_entropy(outputs, batch.targets, reduction="none")
        return torch.stack([one.mean() for one in found.split(batch.lengths.tolist())]) if every else found

    batch = Batch(frames, lengths, torch.arange(19 if every else 4) % 3)
    found = []
    for steps in (0, truncate):
        model = network(over_time).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = make_step(model, optimizer, loss=loss, curves=lambda *_: {}, clip_norm=0.0, truncate=steps)
        step(batch, 0.1)
        found.append((step.loss, step.norm, *model.parameters()))
    whole, parts = found
    torch.testing.assert_close(parts[0], whole[0])
    alike = all(torch.allclose(one, other, atol=1e-6) for one, other in zip(parts, whole, strict=True))
    assert alike == (truncate >= 9)


def test_truncation_is_refused_where_later_frames_are_read(trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(InputError, match=r"train.truncate reads clips in parts, which needs over_time without later"):
        trainer({"layer": "gru", "hidden": [4], "bidirectional": True}, truncate=4)


def test_gradient_norms_of_clips_are_those_over_time(trainer: Callable[..., Trainer]) -> None:
    rows = trainer({"layer": "gru", "hidden": [5, 4], "readout": "mean"}).gradient_norms
    assert {row.layer for row in rows} == {"0.gru", "1.gru"}
    assert {row.step for row in rows} == set(range(8))
    assert all(row.norm > 0 for row in rows if row.layer == "1.gru")


def test_windows_cover_all_frames_and_overlap() -> None:
    lengths = np.array([10, 3, 4, 11])
    windows = cut(lengths, 4, 2)
    assert windows.length.tolist() == [4] * 4 + [3] + [4] + [4] * 5
    assert windows.offset.tolist() == [0, 2, 4, 6, 0, 0, 0, 2, 4, 6, 7]
    assert windows.example.tolist() == [0] * 4 + [1, 2] + [3] * 5
    packed = np.arange(lengths.sum())
    assert of_parts(packed, lengths, windows)[-4:].tolist() == [24, 25, 26, 27]
    assert cut(lengths, 0, 0).length.tolist() == lengths.tolist()
