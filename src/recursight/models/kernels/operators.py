"""The recurrences as operators of torch: `torch.ops.recursight.sequence`, `grid` and `maps`.

On the CPU the native kernels run them. Elsewhere, and where there is no compiler, their plain forms do.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recursight.models.kernels import native, plain

library = plain.define()
for _name, _tensors in (
    ("sequence", "Tensor? from_state, Tensor? state_bias, Tensor? vectors, Tensor? initial, int hidden"),
    ("grid", "Tensor from_state, Tensor? initial, bool last"),
    ("maps", "Tensor from_state, Tensor? vectors, Tensor? initial, int[] lengths"),
):
    library.define(
        f"{_name}_backward(Tensor grad_outputs, Tensor? grad_carried, str cell, Tensor inputs, Tensor from_input,"
        f" Tensor bias, {_tensors}, bool for_inputs, Tensor outputs, Tensor saved) -> Tensor[]"
    )
OPERATORS = torch.ops.recursight


def sequence(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    *,
    from_state: Tensor | None = None,
    state_bias: Tensor | None = None,
    vectors: Tensor | None = None,
    state: tuple[Tensor, ...] | None = None,
    hidden: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Reads a sequence.

    Args:
        cell: its name in kernels.cpp.
        inputs: (B, T, D).
        from_input: products of the input, (blocks·H, D).
        bias: of these, (blocks·H,).
        from_state: products of the state, (blocks·H, H).
        state_bias: of these, (blocks·H,).
        vectors: weights by unit, side by side.
        state: before the first step, as cells.h has it, each part (B, H); None: the cell's own start, mostly zeros.
        hidden: H.

    Returns:
        The outputs (B, T, outputs·H), and those parts of the state after the last step, each (B, H), that are not among
        them.

    Raises:
        ValueError: if inputs and weights differ in D, in dtype or in device.
    """
    initial = None if state is None else torch.cat(state, dim=-1)
    tensors = inputs.contiguous(), from_input, bias, from_state, state_bias, vectors, initial
    if _native(inputs):
        _check(*tensors)
        outputs, carried, _ = _run("sequence", inputs, cell, *tensors, hidden, _saves(tensors))
    else:
        outputs, carried = plain.sequence(cell, *tensors)
    return outputs, carried.split(hidden, dim=-1) if cell in plain.CARRIED else ()


def grid(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    *,
    state: tuple[Tensor, ...] | None = None,
    last: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Reads a grid from its top left corner, or from all four.

    Args:
        cell: its name in kernels.cpp.
        inputs: (B, rows, columns, D).
        from_input: (directions·blocks·H, D).
        bias: (directions·blocks·H,).
        from_state: from the left and from above, (directions, blocks·H, 2·H).
        state: of the row above the first one, each part (B, columns, H), for one direction; None: zeros.
        last: only the states that each direction ends with.

    Returns:
        The states (B, rows, columns, directions·H), or (B, directions·H) if `last`; and, of one direction and not if
        `last`, the last row's other parts, each (B, columns, H).

    Raises:
        ValueError: if inputs and weights differ in D, in dtype or in device.
    """
    initial = None if state is None else torch.cat(state, dim=-1)
    tensors = inputs.contiguous(), from_input, bias, from_state, initial
    if _native(inputs):
        _check(*tensors)
        outputs, carried, _ = _run("grid", inputs, cell, *tensors, last, _saves(tensors))
    else:
        outputs, carried = plain.grid(cell, *tensors, last)
    parts = native.grid_carries(cell, from_state.shape[0], last)
    return outputs, carried.chunk(parts, dim=-1) if parts else ()


def maps(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    *,
    vectors: Tensor | None = None,
    state: tuple[Tensor, ...] | None = None,
    lengths: list[int] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Reads maps over time.

    Args:
        cell: its name in kernels.cpp.
        inputs: (B, T, rows, columns, D).
        from_input: convolution of the input, (blocks·H, D, k, k), k odd.
        bias: of the products, (blocks·H,).
        from_state: convolution of the state, (blocks·H, H, k, k).
        vectors: weights by unit, side by side.
        state: before the first step, as cells.h has it, each part (B, rows, columns, H); None: zeros.
        lengths: steps of each example; None: all T. After them outputs are zero, and the state stays.

    Returns:
        The outputs (B, T, rows, columns, H), and those parts of the state after the last step, each (B, rows, columns,
        H), that are not among them.

    Raises:
        ValueError: if inputs and weights differ in D, in dtype or in device.
    """
    initial = None if state is None else torch.cat(state, dim=-1)
    tensors = inputs.contiguous(), from_input, bias, from_state, vectors, initial
    if _native(inputs):
        _check(*tensors)
        outputs, carried, _ = _run("maps", inputs, cell, *tensors, lengths or [], _saves(tensors))
    else:
        outputs, carried = plain.maps(cell, *tensors, lengths or [])
    return outputs, carried.chunk(plain.CARRIED[cell], dim=-1) if cell in plain.CARRIED else ()


def products(module: torch.nn.Module, inputs: Tensor) -> int:
    """Floating-point operations of the matrix products when the module reads the inputs."""
    from torch.utils.flop_counter import FlopCounterMode

    def of_sequence(_cell: str, inputs: Any, from_input: Any, _bias: Any, from_state: Any, *_: Any, **__: Any) -> int:
        weights = math.prod(from_input) + (math.prod(from_state) if from_state else 0)
        return int(2 * math.prod(inputs[:-1]) * weights)

    recurrences = (OPERATORS.sequence, OPERATORS.grid, OPERATORS.maps)
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(recurrences, of_sequence))
    with counter, torch.no_grad():
        module(inputs)
    return int(counter.get_total_flops())


def _native(inputs: Tensor) -> bool:
    """Whether the operator is called: by whom it is run is then decided when it runs, also for a compiled or exported
    program."""
    if torch.compiler.is_compiling():
        return inputs.device.type == "cpu" and inputs.dtype in native.SUFFIX
    return native.runs(inputs)


def _saves(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether there will be a backward pass."""
    wanted = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return wanted and torch.is_grad_enabled() and not torch.compiler.is_exporting()


def _check(inputs: Tensor, from_input: Tensor, *others: Tensor | None) -> None:
    """The kernels do not check shapes or dtypes; this does."""
    if inputs.shape[-1] != from_input.shape[1]:
        raise ValueError(f"the layer reads {from_input.shape[1]} features; these inputs have {inputs.shape[-1]}")
    for weights in (from_input, *others):
        if weights is not None and (weights.dtype, weights.device) != (inputs.dtype, inputs.device):
            here, there = (f"{tensor.dtype} on {tensor.device}" for tensor in (inputs, weights))
            raise ValueError(f"inputs are {here}, the layer's weights {there}; convert one of them")


Form = Callable[..., Any]
FORMS: dict[str, Form] = {}
"""What the operators do on the CPU: `NAME`, `NAME_autograd` with a gradient, `NAME_backward`."""


def _run(operator: str, inputs: Tensor, *arguments: Any, form: str = "_autograd") -> Any:
    """The operator; past torch's dispatcher, which takes 10 µs a call, where no mode or tracer could see it."""
    traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or type(inputs) is not Tensor
    return getattr(OPERATORS, operator).default(*arguments) if traced else FORMS[operator + form](*arguments)


class _Recurrence(torch.autograd.Function):
    """An operator that saves what its backward pass needs. Arguments: cell, tensors, one size or choice, `save`."""

    @staticmethod
    def forward(ctx: Any, name: str, *arguments: Any) -> plain.Triple:
        outputs, carried, saved = _below_autograd(name, *arguments)
        cell, *tensors, choice, _ = arguments
        ctx.name, ctx.cell, ctx.choice = name, cell, choice
        ctx.save_for_backward(*tensors, outputs, saved)
        ctx.mark_non_differentiable(saved)
        ctx.set_materialize_grads(False)
        return outputs, carried, saved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        for_outputs, for_carried, _ = upstream
        *tensors, outputs, saved = ctx.saved_tensors
        if for_outputs is None:
            for_outputs = torch.zeros_like(outputs)
        wanted = [ctx.needs_input_grad[2], *(tensor is not None for tensor in tensors[1:])]
        arguments = (for_outputs, for_carried, ctx.cell, *tensors, ctx.choice, wanted[0], outputs, saved)
        found = _run(f"{ctx.name}_backward", outputs, *arguments, form="")
        gradients = [gradient if one else None for gradient, one in zip(found, wanted, strict=True)]
        return None, None, *gradients, None, None


def _below_autograd(name: str, *arguments: Any) -> plain.Triple:
    with torch._C._AutoDispatchBelowAutograd():
        found: plain.Triple = _run(name, arguments[1], *arguments, form="")
    return found


def _contiguous(arguments: tuple[Any, ...]) -> list[Any]:
    return [argument.contiguous() if isinstance(argument, Tensor) else argument for argument in arguments]


def _register(name: str) -> None:
    """The operator's forms for the CPU: without and with a gradient, backward, and its shapes alone."""
    kernel, plain_form = getattr(native, name), getattr(plain, f"{name}_operator")

    def forward(cell: str, *arguments: Any) -> plain.Triple:
        form = kernel if native.runs(arguments[0]) else plain_form
        found: plain.Triple = form(cell, *_contiguous(arguments))
        return found

    def differentiable(*arguments: Any) -> plain.Triple:
        saves = arguments[-1]
        return _Recurrence.apply(name, *arguments) if saves else _below_autograd(name, *arguments)  # type: ignore[no-untyped-call]

    def backward(*arguments: Any) -> list[Tensor]:
        found: list[Tensor] = getattr(native, f"{name}_backward")(*_contiguous(arguments))
        return found

    def backward_shapes(_outputs: Tensor, _carried: Tensor, _cell: str, *arguments: Any) -> list[Tensor]:
        *tensors, _choice, for_inputs, _, _ = arguments
        return native.gradients(tensors, for_inputs)

    FORMS.update({name: forward, f"{name}_autograd": differentiable, f"{name}_backward": backward})
    library.impl(name, forward, "CPU")
    library.impl(name, differentiable, "AutogradCPU")
    library.impl(f"{name}_backward", backward, "CPU")
    torch.library.register_fake(f"{plain.NAMESPACE}::{name}", getattr(native, f"{name}_memory"), lib=library)
    torch.library.register_fake(f"{plain.NAMESPACE}::{name}_backward", backward_shapes, lib=library)


_register("sequence")
_register("grid")
_register("maps")
