"""The gradient's norm over time is the derivative by each state, along every path."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recursight.models.assembly import Network, assemble
from recursight.models.layers import LAYERS
from recursight.tasks import Batch
from recursight.training.gradients import GradientNorm, gradient_norms

from .conftest import TASK


def network(**changes: Any) -> Network:
    torch.manual_seed(0)
    plain: dict[str, Any] = {
        "stem": "none",
        "scan": "rows",
        "layer": "elman",
        "hidden": [4],
        "bidirectional": False,
        "dropout": 0.0,
        "readout": "last",
        "input_shape": [6, 5, 1],
        "outputs": 3,
        "reverse": False,
        "mean": [0.5],
        "std": [0.3],
    }
    given = plain | changes
    rest = {key: given.pop(key) for key in ("input_shape", "outputs", "mean", "std")}
    return assemble(given, **rest)


def norms_of(model: Network, images: Tensor | None = None, labels: Tensor | None = None) -> list[GradientNorm]:
    images, labels = (IMAGES, LABELS) if images is None or labels is None else (images, labels)
    return gradient_norms(model, Batch(images, None, labels), TASK.loss)


IMAGES = torch.randint(0, 256, (4, 6, 5, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def test_a_halving_recurrence_halves_the_gradient_at_each_step_back() -> None:
    model = network(layer={"elman": {"activation": "relu"}})
    rnn = model.stacks[0].layers[0].rnn
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(0.5 * torch.eye(4))
        rnn.bias_ih_l0.fill_(100)  # far from the kink, so that ReLU is the identity
    norms = [row.norm for row in norms_of(model)]
    assert norms == pytest.approx([norms[-1] * 0.5**back for back in range(5, -1, -1)], rel=1e-4)
    assert norms[-1] > 0


@pytest.mark.parametrize(
    ("name", "part"), [("gru", 0), ("lstm", 0), ("lstm", 1), ("sru", 1), ("rnn2d", 0), ("mdlstm", 1)]
)
def test_equals_a_finite_difference_of_the_loss(name: str, part: int) -> None:
    grid = LAYERS[name].grid
    model = network(layer=name, hidden=[3], scan="grid" if grid else "rows", readout="mean").double()
    model.mean, model.std = model.mean.double(), model.std.double()
    image, label = IMAGES[:1].double() / 255, LABELS[:1]
    layer = model.stacks[0].layers[0]
    (view,) = model.views(image)

    def loss_with(nudge: Tensor, at: int) -> Tensor:
        outputs, state = [], None
        for t, x in enumerate(view.split(1, dim=1)):
            _, state = layer(x, state)
            if t == at:
                nudged = state[part] + nudge.reshape(state[part].shape)
                state = (*state[:part], nudged, *state[part + 1 :])
            outputs.append(state[0])
        return F.cross_entropy(model.read_out([torch.stack(outputs, dim=1)]), label)

    rows = [row for row in norms_of(model, image, label) if row.state == LAYERS[name].states[part]]
    units = torch.eye(15 if grid else 3).double()  # a row of five pixels, or a step
    for t in (0, 3, 5):
        slopes = [(loss_with(1e-5 * unit, t) - loss_with(-1e-5 * unit, t)) / 2e-5 for unit in units]
        assert rows[t].norm == pytest.approx(torch.stack(slopes).norm().item(), rel=1e-5, abs=1e-10)


INNER = {
    "renet": ["vertical", "vertical.backward", "horizontal", "horizontal.backward"],
    "sequencer": ["vertical", "vertical.backward", "horizontal", "horizontal.backward"],
    "hierarchical": ["pixels", "rows"],
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_layer_shows_every_state(name: str, bidirectional: bool) -> None:
    family = LAYERS[name]
    if bidirectional and not family.causal:
        pytest.skip("reads in all directions as it is")
    hidden = [4] if name == "hierarchical" else [4, 3]
    model = network(
        layer=name, scan="grid" if family.grid else "rows", hidden=hidden, bidirectional=bidirectional, readout="mean"
    )
    rows = norms_of(model)
    directions = ["", ".backward"] if bidirectional else [""]
    inner = [f".{part}" for part in INNER.get(name, [])] or [""]
    names = {
        f"{depth}.{name}{direction}{part}" for depth in range(len(hidden)) for direction in directions for part in inner
    }
    assert {row.layer for row in rows} == names
    for layer in names:
        steps = {"horizontal": 5, "pixels": 5}.get(layer.removesuffix(".backward").rsplit(".")[-1], 6)
        states = {row.state for row in rows if row.layer == layer}
        assert "h" in states
        if name not in INNER:
            assert states == set(family.states) - {"m"}  # a scale without a gradient
        assert {(row.state, row.step) for row in rows if row.layer == layer} == {
            (state, step) for state in states for step in range(steps)
        }
    assert all(row.norm > 0 for row in rows if row.layer.startswith("0") and row.state == "h" and row.step == 0)


def test_views_have_names_and_the_model_keeps_its_gradients() -> None:
    model = network(scan="rows+columns")
    names = {row.layer for row in norms_of(model)}
    assert names == {"rows.0.elman", "columns.0.elman"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_without_recurrence_has_no_curve() -> None:
    assert norms_of(network(layer="none", scan="whole")) == []
