"""Calls the native kernels on tensors: the forward and the backward pass of a cell over a sequence, a grid or maps.

Arguments and results are those of the operators, see `operators.py`. Structures are filled by the names of their
fields, which are read from the C++ that declares them.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recursight.models.kernels.build import library
from recursight.models.kernels.plain import CARRIED, Triple

SUFFIX = {torch.float32: "float", torch.float64: "double"}
OUTPUTS = {"sru": 2, "lru": 2}
"""Values that a cell gives for each unit, where there are more than one."""
OF_SEQUENCE = ("inputs", "from_input", "bias", "from_state", "state_bias", "vectors", "initial")
OF_GRID = ("inputs", "from_input", "bias", "from_state", "initial")
OF_MAPS = ("inputs", "from_input", "bias", "from_state", "vectors", "initial")
MAP_BLOCKS = 16
"""Into so many blocks of examples at most maps are cut; each has its own sum of the weights' gradients."""


def runs(inputs: Tensor) -> bool:
    """Whether the kernels can take these inputs."""
    return inputs.device.type == "cpu" and inputs.dtype in SUFFIX and inputs.numel() > 0 and library() is not None


def sequence(cell: str, *arguments: Any) -> Triple:
    """The forward pass; the arguments are the operator's."""
    *tensors, hidden, _ = arguments
    results = sequence_memory(cell, *arguments)
    _call("Sequence", cell, "forward", _sequence_sizes(tensors[0], hidden), _forward(OF_SEQUENCE, tensors, results))
    return results


def sequence_memory(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor | None,
    state_bias: Tensor | None,
    vectors: Tensor | None,
    initial: Tensor | None,
    hidden: int,
    save: bool,
) -> Triple:
    """What the forward pass fills."""
    batch, steps, _ = inputs.shape
    return (
        inputs.new_empty(batch, steps, OUTPUTS.get(cell, 1) * hidden),
        inputs.new_empty(batch, CARRIED.get(cell, 0) * hidden),
        inputs.new_empty(_saved_size(cell, inputs, hidden) if save else 0),
    )


def sequence_backward(grad_outputs: Tensor, grad_carried: Tensor | None, cell: str, *arguments: Any) -> list[Tensor]:
    """The gradients of inputs, weights and the initial state, empty where there is none."""
    *tensors, hidden, for_inputs, outputs, saved = arguments
    found = gradients(tensors, for_inputs)
    fields = _backward(OF_SEQUENCE, tensors, found, outputs, saved, grad_outputs, grad_carried)
    _call("Sequence", cell, "backward", _sequence_sizes(tensors[0], hidden), fields)
    return found


def grid(cell: str, *arguments: Any) -> Triple:
    """The forward pass; the arguments are the operator's."""
    *tensors, last, _ = arguments
    results = grid_memory(cell, *arguments)
    _call("Grid", cell, "forward", _grid_sizes(tensors, last), _forward(OF_GRID, tensors, results))
    return results


def grid_memory(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    initial: Tensor | None,
    last: bool,
    save: bool,
) -> Triple:
    """What the forward pass fills."""
    batch, height, width, _ = inputs.shape
    directions, hidden = from_state.shape[0], from_state.shape[2] // 2
    return (
        inputs.new_empty(batch, *(() if last else (height, width)), directions * hidden),
        inputs.new_empty(batch, width, grid_carries(cell, directions, last) * hidden),
        inputs.new_empty(_saved_size(cell, inputs, hidden, directions) if save else 0),
    )


def grid_backward(grad_outputs: Tensor, grad_carried: Tensor | None, cell: str, *arguments: Any) -> list[Tensor]:
    """The gradients of inputs, weights and the initial state, empty where there is none."""
    *tensors, last, for_inputs, outputs, saved = arguments
    found = gradients(tensors, for_inputs)
    if for_inputs:  # a part for each direction, so that directions can run at the same time
        found[0] = tensors[0].new_empty(tensors[3].shape[0], *tensors[0].shape)
    fields = _backward(OF_GRID, tensors, found, outputs, saved, grad_outputs, grad_carried)
    _call("Grid", cell, "backward", _grid_sizes(tensors, last), fields)
    if for_inputs:
        found[0] = found[0].sum(dim=0)
    return found


def grid_carries(cell: str, directions: int, last: bool) -> int:
    """Parts of the last row's state, besides the outputs, that the operator gives."""
    return CARRIED.get(cell, 0) if directions == 1 and not last else 0


def maps(cell: str, *arguments: Any) -> Triple:
    """The forward pass; the arguments are the operator's."""
    *tensors, lengths, _ = arguments
    results = maps_memory(cell, *arguments)
    fields = _forward(OF_MAPS, tensors, results) | {"lengths": _map_lengths(tensors[0], lengths)}
    _call("Maps", cell, "forward", _map_sizes(tensors), fields)
    return results


def maps_memory(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    vectors: Tensor | None,
    initial: Tensor | None,
    lengths: list[int],
    save: bool,
) -> Triple:
    """What the forward pass fills."""
    batch, steps, height, width, _ = inputs.shape
    hidden = from_state.shape[1]
    saved = batch * steps * height * width * _kernel(f"{cell}_saved")() * _padded_width(inputs, hidden) if save else 0
    return (
        inputs.new_empty(batch, steps, height, width, hidden),
        inputs.new_empty(batch, height, width, CARRIED.get(cell, 0) * hidden),
        inputs.new_empty(saved),
    )


def maps_backward(grad_outputs: Tensor, grad_carried: Tensor | None, cell: str, *arguments: Any) -> list[Tensor]:
    """The gradients of inputs, weights and the initial state, empty where there is none."""
    *tensors, lengths, for_inputs, outputs, saved = arguments
    found = gradients(tensors, for_inputs)
    fields = _backward(OF_MAPS, tensors, found, outputs, saved, grad_outputs, grad_carried)
    _call("Maps", cell, "backward", _map_sizes(tensors), fields | {"lengths": _map_lengths(tensors[0], lengths)})
    return found


def gradients(tensors: Sequence[Tensor | None], for_inputs: bool) -> list[Tensor]:
    """Memory for the gradient of each tensor, empty where there is none; the inputs are the first."""
    inputs, *others = tensors
    assert inputs is not None
    found = [torch.empty_like(inputs) if for_inputs else inputs.new_empty(0)]
    return found + [inputs.new_empty(0) if one is None else torch.empty_like(one) for one in others]


def _forward(names: Sequence[str], tensors: Sequence[Tensor | None], results: Triple) -> dict[str, Tensor | None]:
    outputs, carried, saved = results
    return {**dict(zip(names, tensors, strict=True)), "outputs": outputs, "carried": carried, "saved": saved}


def _backward(
    names: Sequence[str],
    tensors: Sequence[Tensor | None],
    found: Sequence[Tensor],
    outputs: Tensor,
    saved: Tensor,
    grad_outputs: Tensor,
    grad_carried: Tensor | None,
) -> dict[str, Tensor | None]:
    return {
        **dict(zip(names, tensors, strict=True)),
        **{f"grad_{name}": gradient for name, gradient in zip(names, found, strict=True)},
        "outputs": outputs,
        "saved": saved,
        "grad_outputs": grad_outputs,
        "grad_carried": grad_carried,
    }


def _sequence_sizes(inputs: Tensor, hidden: int) -> dict[str, int]:
    batch, steps, features = inputs.shape
    return {"batch": batch, "steps": steps, "features": features, "hidden": hidden}


def _grid_sizes(tensors: Sequence[Tensor], last: bool) -> dict[str, int]:
    batch, height, width, features = tensors[0].shape
    directions, _, double = tensors[3].shape
    shape = {"batch": batch, "height": height, "width": width, "features": features}
    return {**shape, "hidden": double // 2, "directions": directions, "last": last}


def _map_sizes(tensors: Sequence[Tensor]) -> dict[str, int]:
    inputs, from_input, _, from_state, *_ = tensors
    shape = dict(zip(("batch", "steps", "height", "width", "features"), inputs.shape, strict=True))
    rows = -(-shape["batch"] // MAP_BLOCKS)
    return {**shape, "hidden": from_state.shape[1], "kernel": from_input.shape[-1], "rows": rows}


def _map_lengths(inputs: Tensor, lengths: list[int]) -> Tensor:
    batch, steps, *_ = inputs.shape
    return torch.tensor(lengths or [steps] * batch)


def _saved_size(cell: str, inputs: Tensor, hidden: int, directions: int = 1) -> int:
    """How many values the forward pass saves for the backward pass: for blocks of full size, padded."""
    batch, *steps, _ = inputs.shape
    width = _padded_width(inputs, hidden)
    count: int = _kernel(f"{cell}_saved")()
    for size in (directions, *steps):
        count *= size
    return -(-batch // _rows(batch)) * _rows(batch) * count * width


def _padded_width(inputs: Tensor, hidden: int) -> int:
    """Values that a row of states takes in the kernels' memory."""
    width: int = _kernel("padded_width")(int(hidden), inputs.element_size())
    return width


def _rows(batch: int) -> int:
    """Examples in a block. It follows from the batch alone: sums over blocks must not depend on the threads."""
    return 32 if batch >= 128 else 16 if batch >= 64 else 8


def _call(form: str, cell: str, which: str, sizes: dict[str, int], tensors: dict[str, Tensor | None]) -> None:
    """Runs a kernel on tensors in C order; None and empty ones are null."""
    inputs = tensors["inputs"]
    assert inputs is not None
    work = _structure(form)(**{"rows": _rows(sizes["batch"]), "threads": torch.get_num_threads(), **sizes})
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(work, name, tensor.data_ptr() or None)
    _kernel(f"{cell}_{SUFFIX[inputs.dtype]}_{which}")(ctypes.byref(work))


@cache
def _structure(form: str) -> Any:
    """The C++ structure of this name, which a header declares."""
    header = Path(__file__).parent / f"{form.lower()}.h"
    found = re.search(rf"struct {form} {{(.*?)}};", re.sub(r"//.*", "", header.read_text(encoding="utf-8")), re.DOTALL)
    assert found, header
    fields: list[tuple[str, Any]] = []
    for declaration in found[1].split(";")[:-1]:
        kind = ctypes.c_long if declaration.split()[0] == "long" else ctypes.c_void_p
        fields += [(part.split()[-1].lstrip("*"), kind) for part in declaration.split(",")]
    # setattr accepts any name otherwise.
    return type(form, (ctypes.Structure,), {"_fields_": fields, "__slots__": ()})


def _kernel(name: str) -> Any:
    kernels = library()
    if kernels is None:
        raise RuntimeError("the backward pass of a compiled program needs the native kernels")
    return getattr(kernels, name)
