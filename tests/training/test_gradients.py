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


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_layer_shows_every_state(name: str, bidirectional: bool) -> None:
    grid = LAYERS[name].grid
    model = network(layer=name, scan="grid" if grid else "rows", hidden=[4, 3], bidirectional=bidirectional)
    rows = gradient_norms(model, IMAGES, LABELS)
    steps = 6 + 5 - 1 if grid else 6
    directions = ["", ".backward"] if bidirectional else [""]
    expected = {
        (f"{depth}.{name}{direction}", state, step)
        for depth in (0, 1)
        for direction in directions
        for state in LAYERS[name].states
        for step in range(steps)
    }
    assert {(row.layer, row.state, row.step) for row in rows} == expected
    assert all(row.norm > 0 for row in rows if row.layer.startswith("0") and row.state == "h" and row.step == 0)


def test_views_have_names_and_the_model_keeps_its_gradients() -> None:
    model = network(scan="rows+columns")
    names = {row.layer for row in gradient_norms(model, IMAGES, LABELS)}
    assert names == {"rows.0.elman", "columns.0.elman"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_without_recurrence_has_no_curve() -> None:
    assert gradient_norms(network(layer="none", scan="whole"), IMAGES, LABELS) == []
