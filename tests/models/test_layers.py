"""The contract of every recurrent layer. A layer is tested by standing in LAYERS; options that change its equations
have a row in VARIANTS."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from recursight.models.kernels import native
from recursight.models.kernels.plain import linear_scan, skew, unskew
from recursight.models.layers import LAYERS, OVER_TIME_LAYERS
from recursight.models.layers.recurrence import Bidirectional, Layer, Stack, State, family, last
from recursight.models.layers.sequencer import Sequencer
from tests.models.equations import READINGS

EVERY_LAYER = LAYERS | OVER_TIME_LAYERS
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in EVERY_LAYER),
    ("conv_lstm", {"peepholes": True}),
    ("conv_gru2d", {"kernel": 5}),
    ("elman", {"activation": "relu"}),
    ("elman", {"activation": "relu", "start": "identity"}),
    ("lstm", {"forget_bias": 0.0}),
    ("indrnn", {"activation": "tanh"}),
    ("qrnn", {"window": 3}),
    ("rnn2d", {"directions": 4}),
    ("mdlstm", {"directions": 4}),
    ("renet", {"cell": "mingru"}),
    ("hierarchical", {"cell": "elman"}),
]
FEATURES, HIDDEN = 3, 5

Make = Callable[[], Layer]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *map(str, variant[1].values())]))
def make(request: pytest.FixtureRequest) -> Make:
    name, options = request.param

    def layer() -> Layer:
        torch.manual_seed(0)
        made = EVERY_LAYER[name](FEATURES, HIDDEN, **options).double()
        for weights in made.parameters():  # biases start at zero, and would hide where they go
            weights.data.add_(0.1 * torch.randn_like(weights))
        return made

    return layer


def inputs_for(layer: Layer, batch: int = 4) -> Tensor:
    """Steps (B, T, D), a grid (B, H, W, D) that is not square, or such maps over time (B, T, H, W, D)."""
    inner = (4, 6) if layer.grid else (7, 2, 3) if layer.maps else (7,)
    shape = (batch, *inner, FEATURES)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["kernels", "torch"])
def kernels_or_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By native kernels, and without them."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)


def test_is_named_as_its_row_says() -> None:
    assert {family(layer(2, 4)): layer for layer in EVERY_LAYER.values()} == EVERY_LAYER


def test_gives_a_state_for_each_step(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    steps = inputs.shape[1:-1] if layer.gives_grid or not layer.grid else inputs.shape[1:2]
    outputs, state = layer(inputs)
    assert outputs.shape == (len(inputs), *steps, layer.width)
    assert len(state) == layer.parts


@pytest.mark.usefixtures("kernels_or_torch")
def test_equals_the_equations_of_its_paper_in_value_and_gradient(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer).requires_grad_()
    value, expected = layer(inputs)[0], READINGS[family(layer)](layer, inputs)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    upstream, wanted = torch.randn_like(expected), [inputs, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(value, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("kernels_or_torch")
def test_single_precision_stays_close_to_double(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    expected = layer(inputs)[0]
    torch.testing.assert_close(layer.float()(inputs.float())[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "gates"), [("mingru", [-6.0, 1.0]), ("minlstm", [6.0, -6.0, 1.0]), ("qrnn", [100.0, 6.0, 100.0])]
)
def test_long_memory_outlasts_products_in_bfloat16(
    name: str, gates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With products that bfloat16 holds exactly, a state that keeps 0.9975 of itself at each of 784 steps."""
    monkeypatch.setattr(native, "library", lambda: None)
    layer = LAYERS[name](2, 1)
    with torch.no_grad():
        layer.input.weight.zero_()
        layer.input.bias.copy_(torch.tensor(gates))
        exact = layer.double()(torch.zeros(1, 784, 2, dtype=torch.float64))[0]
        with torch.autocast("cpu", torch.bfloat16):
            states = layer.float()(torch.zeros(1, 784, 2))[0]
    torch.testing.assert_close(states.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["rnn2d", "mdlstm"])
def test_states_of_a_grid_stay_in_single_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    with torch.autocast("cpu", torch.bfloat16):
        assert LAYERS[name](2, 4)(torch.zeros(1, 3, 3, 2))[0].dtype == torch.float32


@pytest.mark.usefixtures("kernels_or_torch")
def test_gradcheck(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer, batch=1)[:, :3]
    if layer.grid:
        inputs = inputs[:, :, :2]
    inputs = inputs.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda inputs, *weights: layer(inputs)[0], (inputs, *layer.parameters()))


def test_the_gradient_of_the_last_state_reaches_the_first_step(make: Make) -> None:
    layer = make()
    if isinstance(layer, Sequencer):
        pytest.skip("one block sees a row and a column, see test_two_sequencer_blocks_see_everything")
    inputs = inputs_for(layer).requires_grad_()
    layer(inputs)[0].flatten(1, -2)[:, -1].pow(2).sum().backward()
    assert inputs.grad is not None
    first = inputs.grad.flatten(1, -2)[:, 0]
    assert (first.abs().sum(dim=-1) > 0).any()  # a ReLU may be shut for some of the examples


def test_examples_of_a_batch_are_independent(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    changed = inputs.clone()
    changed[1] += 1
    before, after = layer(inputs)[0], layer(changed)[0]
    torch.testing.assert_close(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.equal(before[1], after[1])


def test_sees_what_lies_before_or_if_not_causal_everything(make: Make) -> None:
    layer = make()
    inputs = inputs_for(layer)
    changed = inputs.clone()
    if not layer.causal:
        changed[:, 2, 3] += 1
        untouched = torch.zeros(inputs.shape[1:3], dtype=torch.bool)
        if isinstance(layer, Sequencer):  # one block sees the pixel's row and column
            untouched[:] = True
            untouched[2], untouched[:, 3] = False, False
    elif layer.grid and not layer.gives_grid:
        changed[:, 2, 3] += 1
        untouched = torch.arange(inputs.shape[1]) < 2
    elif layer.grid:  # the pixel (2, 3) may change only what is below or right of it
        changed[:, 2, 3] += 1
        untouched = torch.ones(inputs.shape[1:3], dtype=torch.bool)
        untouched[2:, 3:] = False
    else:
        changed[:, 4:5] += 1
        untouched = torch.arange(inputs.shape[1]) < 4
    before, after = layer(inputs)[0], layer(changed)[0]
    assert torch.equal(before[:, untouched], after[:, untouched])
    assert (before[:, ~untouched] != after[:, ~untouched]).any(dim=-1).all()


def test_weights_survive_a_file(make: Make) -> None:
    layer, other = make(), make()
    inputs = inputs_for(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1)
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(layer(inputs)[0], other(inputs)[0])


def test_overfits_eight_images(make: Make) -> None:
    layer = make().float()
    if not list(layer.parameters()):
        pytest.skip("has no weights")
    inputs = inputs_for(layer, batch=8).float()
    labels = torch.arange(8) % 4
    head = nn.Linear(layer.width, 4)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
    for _ in range(200):
        loss = nn.functional.cross_entropy(head(layer(inputs)[0].flatten(1, -2)[:, -1]), labels)
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
    forward_layer, backward = make(), make()
    with torch.no_grad():
        for parameter in backward.parameters():
            parameter.mul_(0.5)
    inputs = inputs_for(forward_layer)
    axes = [1, 2] if forward_layer.grid else [1]
    unmapped = [1] if forward_layer.maps else None
    both = Bidirectional(forward_layer, backward)
    states = both(inputs)[0]
    expected = backward(inputs.flip(axes))[0]
    assert states.shape[-1] == both.width == 2 * forward_layer.width
    torch.testing.assert_close(states[..., : forward_layer.width], forward_layer(inputs)[0])
    torch.testing.assert_close(
        states[..., forward_layer.width :].flip(unmapped or list(range(1, states.dim() - 1))), expected
    )


def test_finals_have_seen_the_whole_input(make: Make) -> None:
    layer = make()
    if isinstance(layer, Sequencer):
        pytest.skip("one block sees a row and a column, see test_two_sequencer_blocks_see_everything")
    if layer.maps:
        pytest.skip("its maps are averaged over space, not read at a pixel")
    inputs = inputs_for(layer).requires_grad_()
    states = layer(inputs)[0].flatten(1, -2)
    finals = layer.finals(inputs.shape[1:-1])
    for share, final in zip(states.chunk(len(finals), dim=-1), finals, strict=True):
        (gradient,) = torch.autograd.grad(share[:, final].pow(2).sum(), inputs, retain_graph=True)
        assert (gradient.abs().sum(dim=(0, -1)) > 0).all()


@pytest.mark.usefixtures("kernels_or_torch")
def test_the_last_states_are_those_among_all_in_value_and_gradient(make: Make) -> None:
    if make().maps:
        pytest.skip("its maps are averaged over space, not read at a pixel")
    for layer in (make(), Bidirectional(make(), make())):
        inputs = inputs_for(layer.forward_layer if isinstance(layer, Bidirectional) else layer).requires_grad_()
        expected = last(layer(inputs)[0].flatten(1, -2), layer.finals(inputs.shape[1:-1]))
        value = layer.last(inputs)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        upstream, wanted = torch.randn_like(expected), [inputs, *layer.parameters()]
        found, among_all = (torch.autograd.grad(of, wanted, upstream) for of in (value, expected))
        for one, other in zip(found, among_all, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def differentiable(state: State) -> State:
    """Those parts whose gradient is one: not sLSTM's scale."""
    return tuple(part for part in state if part.requires_grad)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_two_parts_with_the_state_carried_equal_the_whole(make: Make, dtype: torch.dtype) -> None:
    layer = make().to(dtype)
    if not layer.causal:
        pytest.skip("reads its input whole, see test_layers_that_are_not_causal_take_no_state")
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-5}
    inputs = inputs_for(layer, batch=19).to(dtype).requires_grad_()
    _, before = layer(0.5 * inputs.detach())
    before = tuple(part.detach().requires_grad_() for part in before)
    whole, end = layer(inputs, before)
    for cut in (1, 3):
        first, between = layer(inputs[:, :cut], before)
        second, after = layer(inputs[:, cut:], between)
        parts = torch.cat([first, second], dim=1)
        torch.testing.assert_close(parts, whole, **close)
        torch.testing.assert_close(after, end, **close)
        wanted = [inputs, *layer.parameters(), *before]
        upstream = [torch.randn_like(one) for one in (whole, *differentiable(end))]
        for_whole, for_parts = (
            torch.autograd.grad(values, wanted, upstream, retain_graph=True, allow_unused=True)
            for values in ((whole, *differentiable(end)), (parts, *differentiable(after)))
        )
        torch.testing.assert_close(for_parts, for_whole, **close)


@pytest.mark.usefixtures("kernels_or_torch")
def test_gradcheck_of_the_initial_and_the_final_state(make: Make) -> None:
    layer = make()
    if not layer.causal:
        pytest.skip("reads its input whole")
    inputs = inputs_for(layer, batch=1)[:, :2]
    if layer.grid:
        inputs = inputs[:, :, :2]
    inputs = inputs.clone().requires_grad_()
    start = [part.detach().clone().requires_grad_(part.requires_grad) for part in layer(0.5 * inputs)[1]]

    def read(inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        outputs, after = layer(inputs, state)
        # sLSTM's c and n are divided by a scale, which the gradient takes for a constant.
        return outputs, *(() if isinstance(layer, LAYERS["slstm"]) else differentiable(after))

    assert torch.autograd.gradcheck(read, (inputs, *start))


def test_the_kernels_gradient_of_a_state_is_that_of_torch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for kernels in (True, False):
        layer = make()
        if not layer.causal:
            pytest.skip("reads its input whole")
        if not kernels:
            monkeypatch.setattr(native, "library", lambda: None)
        inputs = inputs_for(layer, batch=70).requires_grad_()
        _, before = layer(0.5 * inputs.detach())
        before = tuple(part.detach().requires_grad_() for part in before)
        outputs, after = layer(inputs, before)
        values = (outputs, *differentiable(after))
        torch.manual_seed(0)
        upstream = [torch.randn(value.shape, dtype=value.dtype) for value in values]
        wanted = [inputs, *layer.parameters(), *before]
        found.append([*values, *torch.autograd.grad(values, wanted, upstream, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        if one is None or other is None:  # sLSTM's scale, h where only other parts are carried
            assert not any(gradient.any() for gradient in (one, other) if gradient is not None)
        else:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("name", ["rnn2d-4", "renet", "sequencer", "bidirectional"])
def test_layers_that_are_not_causal_take_no_state(name: str) -> None:
    layers = {
        "rnn2d-4": lambda: LAYERS["rnn2d"](FEATURES, 4, directions=4),
        "renet": lambda: LAYERS["renet"](FEATURES, 4),
        "sequencer": lambda: LAYERS["sequencer"](FEATURES, 4),
        "bidirectional": lambda: Bidirectional(LAYERS["lstm"](FEATURES, 4), LAYERS["lstm"](FEATURES, 4)),
    }
    layer = layers[name]().double()
    inputs = inputs_for(LAYERS["gru"](1, 1) if name == "bidirectional" else layer)
    _, state = layer(inputs)
    with pytest.raises(ValueError, match="reads its input whole, in more than one direction; it takes no state"):
        layer(inputs, state)


def test_both_directions_end_in_the_states_of_both_layers() -> None:
    both = Bidirectional(LAYERS["lstm"](FEATURES, 4), LAYERS["lstm"](FEATURES, 4)).double()
    inputs = inputs_for(both.forward_layer)
    _, state = both(inputs)
    expected = (*both.forward_layer(inputs)[1], *both.backward_layer(inputs.flip(1))[1])
    assert len(state) == 4
    assert all(map(torch.equal, state, expected))


def test_a_stack_goes_on_from_the_state_of_each_layer() -> None:
    stack = Stack([LAYERS["gru"](FEATURES, 4), LAYERS["qrnn"](4, 5, window=3)], dropout=0.5).double().eval()
    inputs = inputs_for(stack.layers[0])
    whole, end = stack(inputs)
    first, between = stack(inputs[:, :2])
    second, after = stack(inputs[:, 2:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(after, end)


def test_two_sequencer_blocks_see_everything() -> None:
    blocks = Stack([LAYERS["sequencer"](FEATURES, 8), LAYERS["sequencer"](8, 8)], dropout=0.0).double()
    inputs = inputs_for(blocks.layers[0]).requires_grad_()
    blocks(inputs)[0][:, 1, 2].pow(2).sum().backward()
    assert (inputs.grad.abs().sum(dim=-1) > 0).all()


def test_a_stack_feeds_each_layer_with_the_one_below() -> None:
    below, above = LAYERS["gru"](3, 4), LAYERS["gru"](4, 2)
    inputs = torch.randn(2, 5, 3)
    stack = Stack([below, above], dropout=0.5).eval()
    torch.testing.assert_close(stack(inputs)[0], above(below(inputs)[0])[0])
    stack.train()
    torch.manual_seed(0)
    assert not torch.allclose(stack(inputs)[0], above(below(inputs)[0])[0])


def test_the_last_states_of_a_stack_are_its_uppermost_layers() -> None:
    stack = Stack([LAYERS["mdlstm"](FEATURES, 4, directions=4), LAYERS["mdlstm"](16, 3, directions=4)], dropout=0.5)
    stack.double()
    inputs = inputs_for(stack.layers[0])
    torch.manual_seed(3)
    states = stack(inputs)[0].flatten(1, -2)
    torch.manual_seed(3)
    torch.testing.assert_close(stack.last(inputs), last(states, stack.layers[1].finals((4, 6))))


def test_skewing_puts_anti_diagonals_into_columns() -> None:
    grid = torch.arange(6.0).reshape(1, 2, 3, 1)
    skewed = skew(grid)
    assert skewed[0, :, :, 0].tolist() == [[0, 1, 2, 0], [0, 3, 4, 5]]
    assert torch.equal(unskew(skewed, 3), grid)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize(
    ("name", "reference"), [("elman", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)], ids=["elman", "lstm", "gru"]
)
def test_equals_torch(name: str, reference: type[nn.RNNBase]) -> None:
    layer = LAYERS[name](FEATURES, HIDDEN)
    for weights in layer.parameters():
        nn.init.normal_(weights)
    other = reference(FEATURES, HIDDEN, batch_first=True)
    other.load_state_dict({key.removeprefix("rnn."): value for key, value in layer.state_dict().items()})
    inputs = torch.randn(2, 6, FEATURES)
    value, expected = layer(inputs)[0], other(inputs)[0]
    torch.testing.assert_close(value, expected)
    upstream = torch.randn_like(value)
    for one, theirs in zip(
        torch.autograd.grad(value, list(layer.parameters()), upstream),
        torch.autograd.grad(expected, list(other.parameters()), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-5)


def test_the_forget_gate_starts_open() -> None:
    bias = LAYERS["lstm"](FEATURES, HIDDEN).get_parameter("rnn.bias_ih_l0")
    assert bias.reshape(4, HIDDEN)[1].tolist() == [1.0] * HIDDEN
    assert bias.sum() == HIDDEN


def test_the_irnn_starts_by_keeping_its_state() -> None:
    layer = LAYERS["elman"](FEATURES, HIDDEN, activation="relu", start="identity")
    assert torch.equal(layer.get_parameter("rnn.weight_hh_l0"), torch.eye(HIDDEN))
    impulse = torch.zeros(1, 50, FEATURES)
    impulse[:, 0] = 1
    states, _ = layer(impulse)
    torch.testing.assert_close(states[:, -1], states[:, 0])


def test_slstm_survives_gates_that_would_overflow() -> None:
    layer = LAYERS["slstm"](1, 2)
    with torch.no_grad():
        layer.get_parameter("input.weight")[:2] = 1  # the input gate's exponent is the input
    inputs = torch.tensor([[[500.0], [-500.0], [300.0], [-1000.0], [1000.0]]], requires_grad=True)
    states, _ = layer(inputs)
    states.sum().backward()
    assert states.isfinite().all()
    assert inputs.grad.isfinite().all()


def test_the_lru_starts_inside_its_ring_and_stays_stable() -> None:
    layer = LAYERS["lru"](1, 64, smallest=0.5, largest=0.9)
    radius = torch.exp(-torch.exp(layer.get_parameter("decay")))
    assert radius.min() >= 0.5
    assert radius.max() <= 0.9
    with torch.no_grad():
        layer.get_parameter("decay").fill_(-30)  # as slow as training could ever make it
    assert layer(torch.ones(1, 1024, 1))[0].isfinite().all()


LINEAR = ["mingru", "minlstm", "qrnn", "lru"]


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("steps", [1, 2, 3, 49, 50, 1024])
@pytest.mark.parametrize("name", LINEAR)
def test_all_steps_at_once_equal_one_by_one(name: str, steps: int) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](FEATURES, HIDDEN).double()
    inputs = torch.randn(2, steps, FEATURES, dtype=torch.float64).requires_grad_()
    value, expected = layer(inputs)[0], READINGS[name](layer, inputs)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    upstream, wanted = torch.randn_like(value), [inputs, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(value, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(layer.float()(inputs.float())[0].double(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_gradcheck_of_the_scan(constant: bool, complex_numbers: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    dtype = torch.complex128 if complex_numbers else torch.float64
    decay = torch.rand(*([3] if constant else [2, 7, 3]), dtype=dtype, generator=draw, requires_grad=True)
    update = torch.randn(2, 7, 3, dtype=dtype, generator=draw, requires_grad=True)
    assert torch.autograd.gradcheck(linear_scan, (decay, update))


def test_a_scan_over_vanishing_factors_neither_overflows_nor_divides() -> None:
    decay = torch.full((1, 1024, 1), 1e-30, requires_grad=True)
    states = linear_scan(decay, torch.ones(1, 1024, 1))
    states.sum().backward()
    torch.testing.assert_close(states, torch.ones(1, 1024, 1))
    assert decay.grad.isfinite().all()
