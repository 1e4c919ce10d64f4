"""The native kernels: their values are the layers' (test_layers.py runs with them); here what is theirs alone."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recursight.models.kernels import build, native
from recursight.models.kernels.operators import sequence
from recursight.models.layers import LAYERS
from recursight.models.layers.recurrence import Layer, last

pytestmark = pytest.mark.skipif(build.library() is None, reason="no compiler on this machine")

GET = "from recursight.models.kernels.build import library; import sys; sys.exit(library() is None)"


@pytest.fixture(params=[*LAYERS, "rnn2d-4", "elman-relu"])
def layer(request: pytest.FixtureRequest) -> Layer:
    name, _, option = request.param.partition("-")
    options: dict[str, Any] = {"4": {"directions": 4}, "relu": {"activation": "relu"}}.get(option, {})
    torch.manual_seed(0)
    return LAYERS[name](3, 37, **options)  # not a multiple of any vector


def inputs_for(layer: Layer, batch: int) -> Tensor:
    shape = (batch, 5, 4, 3) if layer.grid else (batch, 9, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def value_and_gradients(layer: Layer, inputs: Tensor, read: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    inputs = inputs.clone().requires_grad_()
    layer.zero_grad()
    found = (read or layer)(inputs)
    states = found[0] if isinstance(found, tuple) else found
    (states * torch.linspace(-1, 1, states.numel()).reshape(states.shape)).sum().backward()
    return [states.detach(), inputs.grad, *(weights.grad for weights in layer.parameters())]


@pytest.mark.parametrize("batch", [1, 70])
def test_torch_alone_gives_the_same(layer: Layer, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_for(layer, batch)
    with_kernels = value_and_gradients(layer, inputs)
    monkeypatch.setattr(native, "library", lambda: None)
    without = value_and_gradients(layer, inputs)
    for ours, theirs in zip(with_kernels, without, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("batch", [1, 70])
def test_the_last_states_are_those_among_all_bit_for_bit(layer: Layer, batch: int) -> None:
    inputs = inputs_for(layer, batch)

    def among_all(inputs: Tensor) -> Tensor:
        return last(layer(inputs)[0].flatten(1, -2), layer.finals(inputs.shape[1:-1]))

    assert all(
        map(torch.equal, value_and_gradients(layer, inputs, layer.last), value_and_gradients(layer, inputs, among_all))
    )


@pytest.mark.usefixtures("without_kernels")
def test_the_form_in_torch_is_used_where_there_are_no_kernels() -> None:
    assert not native.runs(torch.zeros(1, 2, 3))


def test_repeats_bit_for_bit_with_any_number_of_threads(layer: Layer) -> None:
    inputs = inputs_for(layer, 130)
    torch.set_num_threads(1)
    first = value_and_gradients(layer, inputs)
    again = value_and_gradients(layer, inputs)
    assert all(map(torch.equal, first, again))
    if type(layer).__name__ not in ("SRU", "Sequencer"):  # these have products of torch's own around the kernels
        torch.set_num_threads(2)
        assert all(map(torch.equal, first, value_and_gradients(layer, inputs)))


def test_an_example_does_not_depend_on_its_batch(layer: Layer) -> None:
    inputs = inputs_for(layer, 130)
    with torch.no_grad():
        states = layer(inputs)[0]
        if type(layer).__name__ in ("SRU", "Sequencer"):  # products of torch's own
            torch.testing.assert_close(layer(inputs[40:41])[0], states[40:41])
        else:
            assert torch.equal(layer(inputs[40:41])[0], states[40:41])
            assert torch.equal(layer(inputs[3:100])[0], states[3:100])


def test_what_is_no_number_is_not_hidden(layer: Layer) -> None:
    """A diverged training must be seen to diverge."""
    inputs = inputs_for(layer, 2)
    inputs[1].flatten()[0] = float("nan")
    inputs.requires_grad_()
    states, _ = layer(inputs)
    states.sum().backward()
    assert states[0].isfinite().all()
    assert inputs.grad[0].isfinite().all()
    assert states[1].isnan().any()
    reading = [weights for name, weights in layer.named_parameters() if name.endswith(("input.weight", "weight_ih_l0"))]
    assert reading
    assert all(weights.grad.isnan().any() for weights in reading)


def test_no_gradient_costs_no_memory_for_one(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_for(layer, 3)
    with torch.no_grad(), monkeypatch.context() as patches:
        patches.setattr(native, "_saved_size", None)
        states = layer(inputs)[0]
    assert states.grad_fn is None
    torch.testing.assert_close(layer(inputs)[0].detach(), states, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (torch.zeros(2, 5, 4), "the layer reads 3 features; these inputs have 4"),
        (
            torch.zeros(2, 5, 3, dtype=torch.float64),
            "inputs are torch.float64 on cpu, the layer's weights torch.float32",
        ),
    ],
)
@pytest.mark.parametrize("name", ["lstm", "mdlstm"])
def test_memory_that_is_not_theirs_is_not_read(name: str, inputs: Tensor, sentence: str) -> None:
    layer = LAYERS[name](3, 8)
    with pytest.raises(ValueError, match=sentence):
        layer(inputs[:, :, None] if layer.grid else inputs)


@pytest.mark.parametrize("function", ["exponential", "sigmoid", "tanh"])
def test_gates_are_exact_over_the_whole_range(function: str) -> None:
    """One unit of a layer whose weights make it the function."""
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.logspace(-8, 0, 100), -torch.logspace(-8, 0, 100)])
    exact = x.double()
    if function == "tanh":
        weights, bias, from_state = torch.ones(1, 1), torch.zeros(1), torch.zeros(1, 1)
        values, _ = sequence("elman_tanh", x[:, None, None], weights, bias, from_state=from_state, hidden=1)
        expected = torch.tanh(exact)
    elif function == "sigmoid":  # h = z with candidate 1
        weights, bias = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 1.0])
        values, _ = sequence("mingru", x[:, None, None], weights, bias, hidden=1)
        expected = torch.sigmoid(exact)
    else:  # two steps: the first input gate's exp(-|x|) is what is left of c beside the second's 1
        steps = torch.stack([-x.abs(), torch.zeros_like(x)], dim=1)[..., None]
        weights = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
        bias = torch.tensor([0.0, 100.0, 100.0, 100.0])
        values = sequence("slstm", steps, weights, bias, from_state=torch.zeros(4, 1), hidden=1)[0][:, 1:]
        expected = torch.ones_like(exact)
    torch.testing.assert_close(values.flatten().double(), expected, rtol=3e-6, atol=2e-7)


def child(cache: Path, script: str = GET, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_first_builds_at_the_same_time_and_after_a_kill(tmp_path: Path) -> None:
    """Of a library of one function, by a compiler that takes its time."""
    source, slow = tmp_path / "one.cpp", tmp_path / "slow"
    source.write_text('extern "C" int one() { return 1; }\n')
    slow.write_text(f'#!/bin/sh\ncase "$*" in *.cpp*) sleep 2;; esac\nexec {build._compiler()} "$@"\n')
    slow.chmod(0o755)
    script = (
        f"from pathlib import Path; from recursight.models.kernels.build import build; build([Path({str(source)!r})])"
    )
    killed = child(tmp_path, script, CXX=str(slow))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("recursight/building-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    children = [child(tmp_path, script, CXX=str(slow)) for _ in range(2)]
    assert [process.communicate()[1] for process in children] == ["", ""]
    assert [process.returncode for process in children] == [0, 0]
    assert len(list(tmp_path.glob("recursight/one-*.so"))) == 1


def test_without_a_compiler_there_is_one_notice_and_no_kernel(tmp_path: Path) -> None:
    process = child(tmp_path, PATH=str(tmp_path), CXX="")
    notice = process.communicate()[1]
    assert process.returncode == 1
    assert notice.strip() == (
        "Recurrent layers run without native kernels, correct but slower: "
        "no C++ compiler was found; install g++ or set CXX."
    )


def test_a_broken_compiler_is_named_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    process = child(tmp_path, CXX=str(broken))
    notice = process.communicate()[1]
    assert process.returncode == 1
    assert "broken could not compile them (out of luck)" in notice
    assert not list(tmp_path.glob("recursight/*.so"))


@pytest.mark.parametrize("levels", [1, pytest.param(9, marks=pytest.mark.thorough)])
def test_what_was_built_in_advance_needs_no_compiler(
    levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the container image, whose last stage has none."""
    plainest = dict(list(build._levels().items())[-levels:])
    monkeypatch.setattr(build, "LEVELS", {platform.machine(): plainest})
    paths = build.build_in_advance(tmp_path / "kernels")
    assert len(paths) == len(plainest) > 0, "no levels are known for this kind of processor"
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    ends = [
        subprocess.run([sys.executable, "-c", GET], env=environment | folder, stderr=subprocess.PIPE, timeout=120)
        for folder in ({}, {build.FOLDER: str(tmp_path / "kernels")})
    ]
    assert [end.returncode for end in ends] == [1, 0], ends
    assert b"no C++ compiler" in ends[0].stderr
    assert not (tmp_path / ".cache").exists()


def test_a_library_for_better_processors_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.setenv(build.FOLDER, str(folder))
    monkeypatch.setattr(build, "LEVELS", {"x86_64": {"best": {"none-has-this"}, "plain": set()}})
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    best, plain = build._paths_in_advance(folder)
    best.touch()
    assert build.built_in_advance() is None
    plain.touch()
    assert build.built_in_advance() == plain


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize("batch", [3, 70])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "sru", "mdlstm"])
def test_torch_accepts_the_operators(cell: str, initial: bool, batch: int) -> None:
    """Torch's own checks of schema, gradient and shapes; a fourth would compare the padding of what is saved."""
    torch.manual_seed(0)
    parts = {"lstm": 2, "mdlstm": 2}.get(cell, 1)
    state = torch.randn(batch, *([3] if cell == "mdlstm" else []), parts * 5, requires_grad=True) if initial else None
    layer = LAYERS[cell](4, 5)
    if cell == "mdlstm":
        inputs = torch.randn(batch, 2, 3, 4, requires_grad=True)
        arguments = (cell, inputs, layer.input.weight, layer.input.bias, layer.recurrent, state, False, True)
        torch.library.opcheck(torch.ops.recursight.grid.default, arguments, test_utils=CHECKS)
        return
    inputs = torch.randn(batch, 3, 4, requires_grad=True)
    if cell == "sru":
        weights = (
            layer.input.weight,
            layer.input.bias,
            None,
            None,
            layer.recurrent.detach().flatten().requires_grad_(),
        )
    else:
        rnn = layer.rnn
        weights = (rnn.weight_ih_l0, rnn.bias_ih_l0, rnn.weight_hh_l0, rnn.bias_hh_l0, None)
    torch.library.opcheck(
        torch.ops.recursight.sequence.default, (cell, inputs, *weights, state, 5, True), test_utils=CHECKS
    )


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["slstm", "mdlstm"])
def test_a_compiled_layer_runs_the_kernels(name: str, dynamic: bool) -> None:
    layer = LAYERS[name](3, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    inputs = inputs_for(layer, 4)
    found = value_and_gradients(layer, inputs, lambda inputs: compiled(inputs)[0])
    for one, other in zip(found, value_and_gradients(layer, inputs), strict=True):
        assert torch.equal(one, other)


def test_a_field_that_the_kernels_do_not_have_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stpes'"):
        native._structure("Sequence")(stpes=1)
