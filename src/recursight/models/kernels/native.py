"""Recurrences by the native kernels, differentiable: each takes weights in torch.nn's layout."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recursight.models.kernels.build import library

SUFFIX = {torch.float32: "float", torch.float64: "double"}


def usable(inputs: Tensor) -> bool:
    """Whether the kernels can take these inputs; if not, the layer's form in torch does."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype in SUFFIX
        and inputs.numel() > 0
        and not torch.compiler.is_compiling()  # a compiled or exported program must not need them
        and library() is not None
    )


def sequence(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    *,
    from_state: Tensor | None = None,
    vectors: Tensor | None = None,
    hidden: int,
    outputs: int = 1,
) -> Tensor:
    """The outputs (B, T, outputs·H) of a cell of `cells.h` over a sequence.

    Args:
        cell: its name in kernels.cpp.
        inputs: (B, T, D).
        from_input: products of the input, (blocks·H, D).
        bias: of every block of products, (blocks·H,).
        from_state: products of the state, (blocks·H, H).
        vectors: point-wise weights, side by side.
        hidden: H.
        outputs: values that the cell gives for each unit.

    Raises:
        ValueError: if inputs and weights differ in D, in dtype or in device.
    """
    tensors = inputs, from_input, bias, from_state, vectors
    _check(*tensors)
    states: Tensor = _Sequence.apply(cell, hidden, outputs, torch.is_grad_enabled(), *tensors)  # type: ignore[no-untyped-call]
    return states


def grid(
    cell: str, inputs: Tensor, from_input: Tensor, bias: Tensor, from_state: Tensor, *, last: bool = False
) -> Tensor:
    """The states (B, rows, columns, directions·H) of a cell of `grid.h`.

    Args:
        cell: its name in kernels.cpp.
        inputs: (B, rows, columns, D).
        from_input: (directions·blocks·H, D).
        bias: (directions·blocks·H,).
        from_state: from the left and from above, (directions, blocks·H, 2·H).
        last: only the states that each direction ends with, (B, directions·H).

    Raises:
        ValueError: if inputs and weights differ in D, in dtype or in device.
    """
    tensors = inputs, from_input, bias, from_state
    _check(*tensors)
    states: Tensor = _Grid.apply(cell, last, torch.is_grad_enabled(), *tensors)  # type: ignore[no-untyped-call]
    return states


def _check(inputs: Tensor, from_input: Tensor, *others: Tensor | None) -> None:
    """The kernels believe what they are told: a wrong width or dtype would be read from memory that is not theirs."""
    if inputs.shape[-1] != from_input.shape[1]:
        raise ValueError(f"the layer reads {from_input.shape[1]} features; these inputs have {inputs.shape[-1]}")
    for weights in (from_input, *others):
        if weights is not None and (weights.dtype, weights.device) != (inputs.dtype, inputs.device):
            here, there = (f"{tensor.dtype} on {tensor.device}" for tensor in (inputs, weights))
            raise ValueError(f"inputs are {here}, the layer's weights {there}; convert one of them")


class _SequenceWork(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("batch", "steps", "features", "hidden", "rows", "threads")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("inputs", "from_input", "bias", "from_state", "vectors", "outputs", "saved"),
                *("grad_outputs", "grad_inputs", "grad_from_input", "grad_bias", "grad_from_state", "grad_vectors"),
            )
        ),
    ]


class _GridWork(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_long)
            for name in ("batch", "height", "width", "features", "hidden", "directions", "last", "rows", "threads")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("inputs", "from_input", "bias", "from_state", "outputs", "saved"),
                *("grad_outputs", "grad_inputs", "grad_from_input", "grad_bias", "grad_from_state"),
            )
        ),
    ]


def _rows(batch: int) -> int:
    """Examples in a block. It follows from the batch alone: sums over blocks must not depend on the threads."""
    return 32 if batch >= 128 else 16 if batch >= 64 else 8


def _saved(cell: str, like: Tensor, steps: int, hidden: int) -> Tensor:
    """What a cell keeps for the way back, for blocks of full size."""
    kernels = _kernels()
    batch = like.shape[0]
    width = kernels.padded_width(hidden, like.element_size())
    blocks = -(-batch // _rows(batch))
    return like.new_empty(blocks * _rows(batch) * steps * getattr(kernels, f"{cell}_saved")() * width)


def _call(
    kernel: str,
    way: str,
    dtype: torch.dtype,
    work: type[ctypes.Structure],
    sizes: tuple[int, ...],
    **tensors: Tensor | None,
) -> None:
    """Runs a kernel on tensors in C order; the structure's fields bear the same names."""
    pointers = {name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()}
    described = work(*sizes, torch.get_num_threads(), **pointers)
    getattr(_kernels(), f"{kernel}_{SUFFIX[dtype]}_{way}")(ctypes.byref(described))


def _kernels() -> ctypes.CDLL:
    kernels = library()
    if kernels is None:
        raise RuntimeError("ask usable() before calling a kernel")
    return kernels


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        hidden: int,
        outputs: int,
        differentiable: bool,
        inputs: Tensor,
        from_input: Tensor,
        bias: Tensor,
        from_state: Tensor | None,
        vectors: Tensor | None,
    ) -> Tensor:
        inputs, from_input, bias = inputs.contiguous(), from_input.contiguous(), bias.contiguous()
        from_state = None if from_state is None else from_state.contiguous()
        vectors = None if vectors is None else vectors.contiguous()
        batch, steps, features = inputs.shape
        states = inputs.new_empty(batch, steps, outputs * hidden)
        saved = _saved(cell, inputs, steps, hidden) if differentiable and any(ctx.needs_input_grad) else None
        ctx.sizes = (batch, steps, features, hidden, _rows(batch))
        _call(
            cell,
            "forward",
            inputs.dtype,
            _SequenceWork,
            ctx.sizes,
            inputs=inputs,
            from_input=from_input,
            bias=bias,
            from_state=from_state,
            vectors=vectors,
            outputs=states,
            saved=saved,
        )
        ctx.cell = cell
        ctx.save_for_backward(inputs, from_input, bias, from_state, vectors, states, saved)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, from_input, bias, from_state, vectors, states, saved = ctx.saved_tensors
        gradient = gradient.contiguous()
        for_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[4] else None
        gradients = [
            None if weights is None else torch.empty_like(weights)
            for weights in (from_input, bias, from_state, vectors)
        ]
        _call(
            ctx.cell,
            "backward",
            inputs.dtype,
            _SequenceWork,
            ctx.sizes,
            inputs=inputs,
            from_input=from_input,
            bias=bias,
            from_state=from_state,
            vectors=vectors,
            outputs=states,
            saved=saved,
            grad_outputs=gradient,
            grad_inputs=for_inputs,
            grad_from_input=gradients[0],
            grad_bias=gradients[1],
            grad_from_state=gradients[2],
            grad_vectors=gradients[3],
        )
        return None, None, None, None, for_inputs, *gradients


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        last: bool,
        differentiable: bool,
        inputs: Tensor,
        from_input: Tensor,
        bias: Tensor,
        from_state: Tensor,
    ) -> Tensor:
        inputs, from_input = inputs.contiguous(), from_input.contiguous()
        bias, from_state = bias.contiguous(), from_state.contiguous()
        batch, height, width, features = inputs.shape
        directions, _, hidden = from_state.shape[0], from_state.shape[1], from_state.shape[2] // 2
        states = inputs.new_empty(batch, *(() if last else (height, width)), directions * hidden)
        keeps = differentiable and any(ctx.needs_input_grad)
        saved = _saved(cell, inputs, directions * height * width, hidden) if keeps else None
        ctx.sizes = (batch, height, width, features, hidden, directions, last, _rows(batch))
        _call(
            cell,
            "forward",
            inputs.dtype,
            _GridWork,
            ctx.sizes,
            inputs=inputs,
            from_input=from_input,
            bias=bias,
            from_state=from_state,
            outputs=states,
            saved=saved,
        )
        ctx.cell = cell
        ctx.save_for_backward(inputs, from_input, bias, from_state, saved)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, from_input, bias, from_state, saved = ctx.saved_tensors
        gradient = gradient.contiguous()
        directions = from_state.shape[0]
        # Each direction has a part of its own, so that directions can run at the same time.
        for_inputs = inputs.new_empty(directions, *inputs.shape) if ctx.needs_input_grad[3] else None
        gradients = [torch.empty_like(weights) for weights in (from_input, bias, from_state)]
        _call(
            ctx.cell,
            "backward",
            inputs.dtype,
            _GridWork,
            ctx.sizes,
            inputs=inputs,
            from_input=from_input,
            bias=bias,
            from_state=from_state,
            saved=saved,
            grad_outputs=gradient,
            grad_inputs=for_inputs,
            grad_from_input=gradients[0],
            grad_bias=gradients[1],
            grad_from_state=gradients[2],
        )
        return None, None, None, None if for_inputs is None else for_inputs.sum(dim=0), *gradients
