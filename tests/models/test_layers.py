"""The contract of every recurrent layer. A layer is tested by standing in LAYERS; options that change its equations
have a row in VARIANTS."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from recursight.models.layers import LAYERS
from recursight.models.layers.recurrence import Bidirectional, Recurrence, Stack
from recursight.models.layers.rnn2d import RNN2D, skew, unskew

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LAYERS),
    ("elman", {"activation": "relu"}),
    ("lstm", {"forget_bias": 0.0}),
]
FEATURES, HIDDEN = 3, 5

Make = Callable[[], Recurrence]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *map(str, variant[1].values())]))
def make(request: pytest.FixtureRequest) -> Make:
    name, options = request.param

    def layer() -> Recurrence:
        torch.manual_seed(0)
        return LAYERS[name](FEATURES, HIDDEN, **options).double()

    return layer


def inputs_for(layer: Recurrence, batch: int = 4) -> Tensor:
    """Steps (B, T, D), or a grid (B, H, W, D) that is not square."""
    shape = (batch, 4, 6, FEATURES) if layer.grid else (batch, 7, FEATURES)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_gives_a_state_for_each_step(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    assert layer(inputs).shape == (*inputs.shape[:-1], HIDDEN)


def test_the_fast_form_equals_the_plain_one_in_value_and_gradient(make: Make) -> None:
    fast, plain = make(), make()
    inputs = inputs_for(fast)
    weights = torch.randn(fast(inputs).shape, dtype=torch.float64)
    for_fast, for_plain = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    value = fast(for_fast)
    expected = plain.gather(plain.unroll(for_plain), for_plain)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    (value * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(for_fast.grad, for_plain.grad, rtol=1e-9, atol=1e-12)
    # Only the sum of two biases that stand side by side is a quantity of the equations, and each gets its gradient.
    for (name, one), (_, other) in zip(fast.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_gradcheck(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer, batch=1)[:, :3].requires_grad_()
    assert torch.autograd.gradcheck(layer, inputs)


def test_the_gradient_of_the_last_state_reaches_the_first_step(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer).requires_grad_()
    layer(inputs).flatten(1, -2)[:, -1].sum().backward()
    assert inputs.grad is not None
    first = inputs.grad.flatten(1, -2)[:, 0]
    assert (first.abs().sum(dim=-1) > 0).all()


def test_examples_of_a_batch_are_independent(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    changed = inputs.clone()
    changed[1] += 1
    before, after = layer(inputs), layer(changed)
    torch.testing.assert_close(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.equal(before[1], after[1])


def test_is_causal(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    changed = inputs.clone()
    if layer.grid:  # the pixel (2, 3) may change only what is below or right of it
        changed[:, 2, 3] += 1
        untouched = torch.ones(inputs.shape[1:3], dtype=torch.bool)
        untouched[2:, 3:] = False
    else:
        changed[:, 4] += 1
        untouched = torch.arange(inputs.shape[1]) < 4
    before, after = layer(inputs), layer(changed)
    assert torch.equal(before[:, untouched], after[:, untouched])
    assert not torch.allclose(before[:, ~untouched], after[:, ~untouched])


def test_weights_survive_a_file(make: Make) -> None:
    layer, other = make(), make()
    inputs = inputs_for(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1)
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(layer(inputs), other(inputs))


def test_overfits_eight_images(make: Make) -> None:
    layer = make().float()
    inputs = inputs_for(layer, batch=8).float()
    labels = torch.arange(8) % 4
    head = nn.Linear(HIDDEN, 4)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
    for _ in range(200):
        loss = nn.functional.cross_entropy(head(layer(inputs).flatten(1, -2)[:, -1]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05


@pytest.mark.parametrize("sizes", [(0, 4), (3, 0)])
def test_impossible_sizes_are_refused(make: Make, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|greater than zero|must be"):
        type(make())(*sizes)


def test_both_directions_are_two_layers_side_by_side(make: Make) -> None:
    onward, backward = make(), make()
    with torch.no_grad():
        for parameter in backward.parameters():
            parameter.mul_(0.5)
    inputs = inputs_for(onward)
    axes = [1, 2] if onward.grid else [1]
    states = Bidirectional(onward, backward)(inputs)
    torch.testing.assert_close(states[..., :HIDDEN], onward(inputs))
    torch.testing.assert_close(states[..., HIDDEN:].flip(axes), backward(inputs.flip(axes)))


def test_a_stack_feeds_each_layer_with_the_one_below() -> None:
    below, above = LAYERS["gru"](3, 4), LAYERS["gru"](4, 2)
    inputs = torch.randn(2, 5, 3)
    stack = Stack([below, above], dropout=0.5).eval()
    torch.testing.assert_close(stack(inputs), above(below(inputs)))
    stack.train()
    torch.manual_seed(0)
    assert not torch.allclose(stack(inputs), above(below(inputs)))


def test_rnn2d_equals_the_double_loop_over_pixels() -> None:
    layer = RNN2D(FEATURES, HIDDEN).double()
    grid = inputs_for(layer)
    from_left, from_above = layer.recurrent.weight.split(HIDDEN, dim=1)
    batch, height, width, _ = grid.shape
    h: dict[tuple[int, int], Tensor] = {}
    zero = torch.zeros(batch, HIDDEN, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            left, above = h.get((i, j - 1), zero), h.get((i - 1, j), zero)
            h[i, j] = torch.tanh(layer.input(grid[:, i, j]) + left @ from_left.T + above @ from_above.T)
    states = layer(grid)
    for (i, j), expected in h.items():
        torch.testing.assert_close(states[:, i, j], expected, rtol=1e-10, atol=1e-12)


def test_skewing_puts_anti_diagonals_into_columns() -> None:
    grid = torch.arange(6.0).reshape(1, 2, 3, 1)
    skewed = skew(grid)
    assert skewed[0, :, :, 0].tolist() == [[0, 1, 2, 0], [0, 3, 4, 5]]
    assert torch.equal(unskew(skewed, 3), grid)


@pytest.mark.parametrize(
    ("name", "reference"), [("elman", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)], ids=["elman", "lstm", "gru"]
)
def test_equals_torch(name: str, reference: type[nn.RNNBase]) -> None:
    layer = LAYERS[name](FEATURES, HIDDEN)
    other = reference(FEATURES, HIDDEN, batch_first=True)
    other.load_state_dict({key.removeprefix("rnn."): value for key, value in layer.state_dict().items()})
    inputs = torch.randn(2, 6, FEATURES)
    torch.testing.assert_close(layer(inputs), other(inputs)[0])


def test_the_forget_gate_starts_open() -> None:
    bias = LAYERS["lstm"](FEATURES, HIDDEN).get_parameter("rnn.bias_ih_l0")
    assert bias.reshape(4, HIDDEN)[1].tolist() == [1.0] * HIDDEN
    assert bias.sum() == HIDDEN
