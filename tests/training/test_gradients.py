"""The gradient's norm over time is the derivative by each state, along every path."""

from typing import Any

import pytest
import torch

from recursight.models.assembly import Classifier, assemble
from recursight.models.layers import LAYERS
from recursight.training.gradients import gradient_norms


def network(**changes: Any) -> Classifier:
    torch.manual_seed(0)
    plain: dict[str, Any] = {
        "stem": "none",
        "channels": [],
        "scan": "rows",
        "layer": "elman",
        "hidden": [4],
        "bidirectional": False,
        "dropout": 0.0,
        "readout": "last",
        "options": {},
        "input_shape": [6, 5, 1],
        "classes": 3,
        "mean": [0.5],
        "std": [0.3],
    }
    return assemble(**(plain | changes))


IMAGES = torch.randint(0, 256, (4, 6, 5, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def test_a_halving_recurrence_halves_the_gradient_at_each_step_back() -> None:
    model = network(options={"activation": "relu"})
    rnn = model.stacks[0].layers[0].rnn
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(0.5 * torch.eye(4))
        rnn.bias_ih_l0.fill_(100)  # far from the kink, so that ReLU is the identity
    norms = [row.norm for row in gradient_norms(model, IMAGES, LABELS)]
    assert norms == pytest.approx([norms[-1] * 0.5**back for back in range(5, -1, -1)], rel=1e-4)
    assert norms[-1] > 0


def test_equals_a_finite_difference_of_the_loss() -> None:
    model = network(layer="gru", hidden=[3]).double()
    model.mean, model.std = model.mean.double(), model.std.double()
    image, label = IMAGES[:1].double() / 255, LABELS[:1]
    layer = model.stacks[0].layers[0]
    (view,) = model.views(image)

    def loss_with(nudge: torch.Tensor, at: int) -> torch.Tensor:
        state = layer.initial_state(view)
        for t, x in enumerate(view.unbind(dim=1)):
            state = layer.step(x, state)
            if t == at:
                state = (state[0] + nudge,)
        return torch.nn.functional.cross_entropy(model.classify([state[0].unsqueeze(1)]), label)

    rows = gradient_norms(model, image, label)
    for t in (0, 3, 5):
        slopes = [(loss_with(1e-5 * unit, t) - loss_with(-1e-5 * unit, t)) / 2e-5 for unit in torch.eye(3).double()]
        assert rows[t].norm == pytest.approx(torch.stack(slopes).norm().item(), rel=1e-5)


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
    rows = gradient_norms(model, IMAGES, LABELS)
    directions = ["", ".backward"] if bidirectional else [""]
    inner = [f".{part}" for part in INNER.get(name, [])] or [""]
    names = {
        f"{depth}.{name}{direction}{part}" for depth in range(len(hidden)) for direction in directions for part in inner
    }
    assert {row.layer for row in rows} == names
    for layer in names:
        steps = {"vertical": 6, "horizontal": 5, "pixels": 5, "rows": 6}.get(
            layer.removesuffix(".backward").rsplit(".")[-1], 6 + 5 - 1 if family.grid else 6
        )
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
    names = {row.layer for row in gradient_norms(model, IMAGES, LABELS)}
    assert names == {"rows.0.elman", "columns.0.elman"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_without_recurrence_has_no_curve() -> None:
    assert gradient_norms(network(layer="none", scan="whole"), IMAGES, LABELS) == []
