"""Candidates are put together by name, and a wrong name is refused with the nearest right one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recursight.errors import InputError
from recursight.models.assembly import Network, assemble
from recursight.models.layers import LAYERS
from recursight.models.readouts import READOUTS, Attention, MultiHead
from recursight.models.scans import SCANS
from recursight.models.stems import STEMS
from recursight.params import load

PLAIN: dict[str, Any] = {
    "stem": "none",
    "scan": "rows",
    "layer": "gru",
    "hidden": [5],
    "bidirectional": False,
    "dropout": 0.0,
    "readout": "last",
    "input_shape": [8, 6, 1],
    "outputs": 3,
    "reverse": False,
    "mean": [0.5],
    "std": [0.25],
}
PARAMS = load(Path(__file__).parents[2] / "params.yaml")


def build(**changes: Any) -> Network:
    torch.manual_seed(0)
    given = PLAIN | changes
    rest = {key: given.pop(key) for key in ("input_shape", "outputs", "mean", "std")}
    return assemble(given, **rest).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PARAMS.candidates)
@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 16, 3)], ids=["grey", "colour"])
def test_every_candidate_of_the_project_reads_images(name: str, shape: tuple[int, int, int]) -> None:
    channels = shape[2]
    model = assemble(
        PARAMS.candidates[name].architecture,
        input_shape=shape,
        outputs=4,
        mean=[0.5] * channels,
        std=[0.2] * channels,
    ).eval()
    batch = images(3, *shape)
    logits = model(batch)
    assert logits.shape == (3, 4)
    assert logits.isfinite().all()
    torch.testing.assert_close(model(batch[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    states = [stack(view)[0] for stack, view in zip(model.stacks, model.views(batch), strict=True)]
    torch.testing.assert_close(model.read_out(states), logits)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_readout_fits_both_directions(readout: str, bidirectional: bool) -> None:
    assert build(readout=readout, bidirectional=bidirectional, hidden=[4])(images(2, 8, 6, 1)).shape == (2, 3)


def test_bytes_and_fractions_are_the_same_image() -> None:
    model, batch = build(), images(2, 8, 6, 1)
    torch.testing.assert_close(model(batch), model(batch.float() / 255))


def test_images_are_normalised_by_channel() -> None:
    model = build(scan="whole", layer="none", input_shape=[1, 1, 2], mean=[0.5, 0.0], std=[0.5, 2.0])
    (view,) = model.views(torch.tensor([[[[255, 0]], [[0, 255]]]], dtype=torch.uint8).reshape(2, 1, 1, 2))
    torch.testing.assert_close(view.flatten(1), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))


def test_last_of_both_directions_has_read_the_whole_image() -> None:
    model = build(bidirectional=True)
    image = torch.rand(1, 8, 6, 1, requires_grad=True)
    states, _ = model.stacks[0](model.views(image)[0])
    backward_half = model.readouts[0](states)[:, 5:]
    (gradient,) = torch.autograd.grad(backward_half.sum(), image)
    assert (gradient.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_attention_weighs_steps_and_sums_to_one() -> None:
    states = torch.randn(2, 7, 5)
    attention = Attention(5, [6])
    weights = attention.weights(states)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(attention(states), torch.einsum("bt,bth->bh", weights, states))


def test_each_head_weighs_steps_for_its_share() -> None:
    states = torch.randn(2, 7, 6)
    multihead = MultiHead(6, [6], heads=3)
    weights = multihead.weights(states)
    assert weights.shape == (2, 7, 3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 3))
    values = multihead.key_value(states)[..., 6:].reshape(2, 7, 3, 2)
    expected = multihead.merge(torch.einsum("bth,bthd->bhd", weights, values).flatten(1))
    torch.testing.assert_close(multihead(states), expected)


@pytest.mark.parametrize(
    ("name", "readout"),
    [
        *((name, "last") for name in LAYERS),
        *(
            pytest.param(name, "attention", marks=() if name in ("gru", "rnn2d") else pytest.mark.thorough)
            for name in LAYERS
        ),
    ],
)
def test_every_layer_makes_a_classifier_that_can_be_exported(name: str, readout: str, tmp_path: Path) -> None:
    grid = LAYERS[name].grid
    model = build(
        layer=name,
        scan="grid" if grid else "rows",
        hidden=[4] if name == "hierarchical" else [4, 8],
        bidirectional=not grid and readout == "last",
        readout=readout,
        input_shape=[6, 4, 1],
    )
    with torch.no_grad():
        program = torch.export.export(model, (images(2, 6, 4, 1),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "model.pt2")
    exported = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 5):
        batch = images(count, 6, 4, 1)
        torch.testing.assert_close(exported(batch), model(batch))


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("reverse", [False, True])
def test_every_stem_fits_every_scan(stem: str, scan: str, reverse: bool) -> None:
    layer = "mdlstm" if scan in ("grid", "patch-grid") else "gru"
    model = build(
        stem={stem: {"patch_size": 2}} if stem == "patches" else stem,
        scan={scan: {"patch_size": 2}} if "patch" in scan else scan,
        layer=layer,
        reverse=reverse,
        input_shape=[8, 12, 3],
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )
    assert model(images(2, 8, 12, 3)).shape == (2, 3)


def test_a_strided_convolution_halves_as_pooling_does() -> None:
    for downsample in ("pool", "stride"):
        model = build(stem={"conv": {"channels": [4, 4, 4], "downsample": downsample}}, input_shape=[28, 28, 1])
        assert model.stem(torch.zeros(1, 28, 28, 1)).shape == (1, 7, 7, 4)


def test_the_patch_embedding_is_a_strided_convolution() -> None:
    model = build(
        stem={"patches": {"patch_size": 2, "width": 5}}, input_shape=[4, 6, 3], mean=[0.5] * 3, std=[0.25] * 3
    )
    image = torch.rand(2, 4, 6, 3)
    kernel = model.stem.embed.weight.reshape(5, 2, 2, 3).permute(0, 3, 1, 2)
    expected = F.conv2d(image.permute(0, 3, 1, 2), kernel, model.stem.embed.bias, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(model.stem(image), expected)


def test_the_conv_stem_is_convolution_normalisation_rectifying_and_pooling() -> None:
    stem = build(stem={"conv": {"channels": [6]}}, input_shape=[8, 10, 3]).stem.double().train()
    image = torch.rand(4, 8, 10, 3, dtype=torch.float64, requires_grad=True)
    convolution, normalisation = stem.blocks[:2]
    normal = normalisation(F.conv2d(image.permute(0, 3, 1, 2), convolution.weight, padding=1))
    expected = F.max_pool2d(normal.relu(), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(stem(image), expected)
    upstream = torch.rand_like(expected)
    weights = [image, *stem.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(stem(image), weights, upstream), torch.autograd.grad(expected, weights, upstream)
    )


def test_the_conv_stem_keeps_small_images_readable() -> None:
    model = build(stem={"conv": {"channels": [4, 4, 4]}}, input_shape=[28, 28, 1])
    assert model.stem(torch.zeros(1, 28, 28, 1)).shape == (1, 7, 7, 4)


def test_floats_of_any_width_are_images() -> None:
    model, batch = build(), images(3, 8, 6, 1)
    for dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(model(batch.to(dtype) / 255), model(batch))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layer": "grru"}, "layer: 'grru' is unknown; did you mean 'gru'?"),
        ({"scan": "row"}, "scan: 'row' is unknown; did you mean 'rows'?"),
        ({"stem": "cnov"}, "stem: 'cnov' is unknown; did you mean 'conv'?"),
        ({"readout": "atention"}, "readout: 'atention' is unknown; did you mean 'attention'?"),
        ({"layer": "rnn2d"}, "scan: 'rnn2d' reads a grid; set scan to 'grid', not 'rows'."),
        ({"scan": "grid"}, "scan: 'gru' reads a sequence; set scan to one, such as 'rows', not 'grid'."),
        (
            {"layer": {"lstm": {"forget_bais": 1}}},
            "layer.lstm.forget_bais: 'lstm' has no such option; did you mean 'forget_bias'?",
        ),
        (
            {"layer": "hierarchical", "scan": "grid", "hidden": [4, 4]},
            "hidden: 'hierarchical' gives a sequence, which it cannot read again; set hidden to one width.",
        ),
        (
            {"layer": "renet", "scan": "grid", "bidirectional": True},
            "bidirectional: 'renet' reads in all directions as it is; set bidirectional to false.",
        ),
        (
            {"layer": {"renet": {"cell": "grru"}}, "scan": "grid"},
            "layer.renet: cell 'grru' is unknown; did you mean 'gru'?",
        ),
        (
            {"readout": {"multihead": {"heads": 2}}},
            "readout.multihead: heads 2 does not divide the 5 features of the states; use one of 1, 5.",
        ),
        ({"stem": "patches"}, "stem: patch_size 4 does not tile 8×6; use one of 1, 2."),
        ({"layer": {"gru": {"x": 1}}}, "layer.gru.x: 'gru' has no such option; it has none."),
        (
            {"layer": {"elman": {"activation": "sine"}}},
            "layer.elman: activation must be tanh or relu; it is 'sine'.",
        ),
        ({"layer": {"lstm": {"forget_bias": "one"}}}, "layer.lstm.forget_bias: 'one' is not a number."),
        ({"layer": {"qrnn": {"window": 2.0}}}, "layer.qrnn.window: 2.0 is not a whole number."),
        ({"layer": {"elman": {"start": None}}}, "layer.elman.start: None is not a name."),
        (
            {"stem": {"conv": {"channles": [4]}}},
            "stem.conv.channles: 'conv' has no such option; did you mean 'channels'?",
        ),
        ({"stem": {"conv": {"channels": 4}}}, "stem.conv.channels: 4 is not a list of whole numbers."),
        (
            {"stem": {"conv": {"channels": [0]}}},
            "stem.conv: channels must be a list of numbers of at least 1; it is [0].",
        ),
        ({"scan": {"rows": {"patch_size": 2}}}, "scan.rows.patch_size: 'rows' has no such option; it has none."),
        ({"scan": {"patches": {"patch_size": 0}}}, "scan.patches: patch_size 0 does not tile 8×6; use one of 1, 2."),
        ({"readout": {"mean": {"heads": 2}}}, "readout.mean.heads: 'mean' has no such option; it has none."),
    ],
)
def test_wrong_names_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        build(**changes)
    assert str(refusal.value) == sentence


def test_options_of_a_layer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(LAYERS["gru"]):  # type: ignore[misc]
        def __init__(self, inputs: int, hidden: int, *, gated: bool = True, order: list[int] | None = None) -> None:
            super().__init__(inputs, hidden)
            self.gated, self.order = gated, order

    monkeypatch.setitem(LAYERS, "own", Own)
    build(layer={"own": {"gated": False, "order": [1, 0]}})
    with pytest.raises(InputError) as refusal:
        build(layer={"own": {"gated": 1}})
    assert str(refusal.value) == "layer.own.gated: 1 is not true or false."


@pytest.mark.parametrize("scan", ["rows+columns", "grid"])
def test_reversed_views_are_read_from_their_end(scan: str) -> None:
    layer, batch = ("mdlstm" if scan == "grid" else "gru"), images(2, 8, 6, 1)
    forward, backward = (build(scan=scan, layer=layer, reverse=reverse).views(batch) for reverse in (False, True))
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(other, one.flip(list(range(1, one.dim() - 1))))
