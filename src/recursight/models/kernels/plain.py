"""The recurrent operators in plain torch: for devices other than the CPU, and where there are no native kernels.

A registered model carries a copy of this file, so that it runs where recursight is not installed. It therefore
imports torch alone, and the operators' names and arguments must stay what they are.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]

NAMESPACE = "recursight"
SCHEMAS = (
    "sequence(str cell, Tensor inputs, Tensor from_input, Tensor bias, Tensor? from_state, Tensor? state_bias,"
    " Tensor? vectors, Tensor? initial, int hidden, bool save) -> (Tensor outputs, Tensor carried, Tensor saved)",
    "grid(str cell, Tensor inputs, Tensor from_input, Tensor bias, Tensor from_state, Tensor? initial, bool last,"
    " bool save) -> (Tensor outputs, Tensor carried, Tensor saved)",
    "maps(str cell, Tensor inputs, Tensor from_input, Tensor bias, Tensor from_state, Tensor? vectors, Tensor? initial,"
    " int[] lengths, bool save) -> (Tensor outputs, Tensor carried, Tensor saved)",
)
"""See the functions of these names in `operators`. `saved`: what the native backward pass needs, if `save`."""

CARRIED = {"lstm": 1, "slstm": 3, "qrnn": 1, "mdlstm": 1, "conv_lstm": 1, "conv_lstm_peepholes": 1}
"""How many parts of a cell's state, besides its outputs, it carries from step to step."""


def define() -> torch.library.Library:
    """Makes `torch.ops.recursight` known to torch, with the plain forms for every device."""
    library = torch.library.Library(NAMESPACE, "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    library.impl("sequence", sequence_operator, "CompositeExplicitAutograd")
    library.impl("grid", grid_operator, "CompositeExplicitAutograd")
    library.impl("maps", maps_operator, "CompositeExplicitAutograd")
    return library


def sequence_operator(cell: str, inputs: Tensor, *others: Any) -> Triple:
    """The operator `sequence`, saving nothing."""
    *tensors, _hidden, _save = others
    return *sequence(cell, inputs, *tensors), inputs.new_empty(0)


def grid_operator(cell: str, inputs: Tensor, *others: Any) -> Triple:
    """The operator `grid`, saving nothing."""
    *arguments, _save = others
    return *grid(cell, inputs, *arguments), inputs.new_empty(0)


def maps_operator(cell: str, inputs: Tensor, *others: Any) -> Triple:
    """The operator `maps`, saving nothing."""
    *arguments, _save = others
    return *maps(cell, inputs, *arguments), inputs.new_empty(0)


def sequence(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor | None,
    state_bias: Tensor | None,
    vectors: Tensor | None,
    initial: Tensor | None,
) -> Pair:
    """See `operators.sequence`."""
    if cell in TORCH:
        assert from_state is not None
        assert state_bias is not None
        return _by_torch(TORCH[cell], inputs, [from_input, from_state, bias, state_bias], initial)
    products = F.linear(inputs, from_input, bias)  # B T blocks·H
    if cell == "slstm":
        assert from_state is not None
        return _slstm(products, from_state, initial)
    return CELLS[cell](products, vectors, initial)


TORCH = {"elman_tanh": "rnn_tanh", "elman_relu": "rnn_relu", "lstm": "lstm", "gru": "gru"}


def _by_torch(name: str, inputs: Tensor, weights: list[Tensor], initial: Tensor | None) -> Pair:
    """Torch's own operator, with cuDNN on CUDA."""
    batch, hidden = inputs.shape[0], weights[1].shape[1]
    parts = 2 if name == "lstm" else 1
    if initial is None:
        state = [inputs.new_zeros(1, batch, hidden)] * parts
    else:
        state = [part.contiguous() for part in initial.unsqueeze(0).chunk(parts, dim=-1)]
    start = state if name == "lstm" else state[0]
    # Biases, one layer, no dropout, trained or not, one direction, batch first.
    outputs, *final = getattr(torch, name)(inputs, start, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    return outputs, final[1][0] if name == "lstm" else inputs.new_empty(batch, 0)


def _slstm(products: Tensor, from_state: Tensor, initial: Tensor | None) -> Pair:
    if initial is None:
        h = c = n = products.new_zeros(products.shape[0], from_state.shape[1])
        m = h - 1e30  # so low that the first step's exp(log f + m) is 0
    else:
        h, c, n, m = initial.chunk(4, dim=-1)
        m = m.detach()  # a scale, on which h does not depend
    states = []
    for x in products.unbind(dim=1):
        enter, forget, candidate, out = (x + F.linear(h, from_state)).chunk(4, dim=-1)
        kept = F.logsigmoid(forget) + m
        m = torch.maximum(kept, enter).detach()
        f, i = torch.exp(kept - m), torch.exp(enter - m)
        c = f * c + i * torch.tanh(candidate)
        n = f * n + i
        h = torch.sigmoid(out) * c / n
        states.append(h)
    return torch.stack(states, dim=1), torch.cat([c, n, m], dim=-1)


# The other cells: from the inputs' products (B, T, blocks·H), weights by unit and the state before the first step.


def _indrnn(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Any, Tensor | None], Pair]:
    def cell(products: Tensor, recurrent: Any, initial: Tensor | None) -> Pair:
        h = torch.zeros_like(products[:, 0]) if initial is None else initial
        states = []
        for x in products.unbind(dim=1):
            h = activation(torch.addcmul(x, recurrent, h))
            states.append(h)
        return torch.stack(states, dim=1), _nothing(products)

    return cell


def _mingru(products: Tensor, vectors: Any, initial: Tensor | None) -> Pair:
    gate, candidate = _upcast(products).chunk(2, dim=-1)
    return linear_scan(torch.sigmoid(-gate), torch.sigmoid(gate) * candidate, initial), _nothing(products)


def _minlstm(products: Tensor, vectors: Any, initial: Tensor | None) -> Pair:
    forget, enter, candidate = _upcast(products).chunk(3, dim=-1)
    # f/(f + i) = σ(log f - log i), which neither divides zero by zero nor loses a small share.
    keep = F.logsigmoid(forget) - F.logsigmoid(enter)
    return linear_scan(torch.sigmoid(keep), torch.sigmoid(-keep) * candidate, initial), _nothing(products)


def _sru(products: Tensor, vectors: Any, initial: Tensor | None) -> Pair:
    of_forget, of_reset = vectors.chunk(2)
    c = products.new_zeros(products.shape[0], of_forget.shape[0]) if initial is None else initial
    cells, resets = [], []
    for product in products.unbind(dim=1):
        forget, reset, candidate = product.chunk(3, dim=-1)
        f, r = torch.sigmoid(forget + of_forget * c), torch.sigmoid(reset + of_reset * c)
        c = f * c + (1 - f) * candidate
        cells.append(c)
        resets.append(r)
    return torch.cat([torch.stack(cells, dim=1), torch.stack(resets, dim=1)], dim=-1), _nothing(products)


def _qrnn(products: Tensor, vectors: Any, initial: Tensor | None) -> Pair:
    candidate, forget, out = _upcast(products).chunk(3, dim=-1)
    c = linear_scan(torch.sigmoid(forget), torch.sigmoid(-forget) * torch.tanh(candidate), initial)
    return torch.sigmoid(out) * c, c[:, -1]


def _lru(products: Tensor, eigenvalue: Any, initial: Tensor | None) -> Pair:
    update = torch.complex(*_upcast(products).chunk(2, dim=-1))
    start = None if initial is None else torch.complex(*initial.chunk(2, dim=-1))
    states = linear_scan(torch.complex(*eigenvalue.chunk(2)), update, start)
    return torch.cat([states.real, states.imag], dim=-1), _nothing(products)


def _glu(products: Tensor, vectors: Any, initial: Tensor | None) -> Pair:
    return F.glu(products, dim=-1), _nothing(products)


CELLS: dict[str, Callable[[Tensor, Any, Tensor | None], Pair]] = {
    "indrnn_tanh": _indrnn(torch.tanh),
    "indrnn_relu": _indrnn(torch.relu),
    "mingru": _mingru,
    "minlstm": _minlstm,
    "sru": _sru,
    "qrnn": _qrnn,
    "lru": _lru,
    "glu": _glu,
}


def _nothing(products: Tensor) -> Tensor:
    return products.new_empty(products.shape[0], 0)


def _upcast(products: Tensor) -> Tensor:
    """To float32 at least: over many steps a recurrence adds up what bfloat16, as products are on CUDA, rounds away."""
    return products.to(torch.promote_types(products.dtype, torch.float32))


# ---- Linear recurrences, h[t] = a[t] ⊙ h[t-1] + b[t], for all t at once. ----
#
# Time is cut into chunks of about √T steps (Blelloch, 1990, "Prefix sums and their applications", sec. 1.4, with chunks
# for processors): all chunks run side by side from a zero state, then the state at each chunk's start is carried over.
# As long as |a| ≤ 1, every product of a's only shrinks, so nothing overflows and no logarithms are needed.


def linear_scan(decay: Tensor, update: Tensor, initial: Tensor | None = None) -> Tensor:
    """The states (B, T, H).

    Args:
        decay: a, real or complex, (B, T, H) or, where it is the same for all, (H,).
        update: b, (B, T, H).
        initial: h[-1], (B, H); None: zeros.
    """
    if initial is not None:
        first = decay if decay.dim() == 1 else decay[:, 0]
        update = torch.cat([(update[:, 0] + first * initial).unsqueeze(1), update[:, 1:]], dim=1)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        states: Tensor = _LinearScan.apply(decay, update)  # type: ignore[no-untyped-call]
        return states
    return _chunked(decay, update)


class _LinearScan(torch.autograd.Function):
    """The gradient that reaches h[t] is a scan in reverse: g[t] = ∂h[t] + ā[t+1] g[t+1]; b gets g, a gets g h̄[t-1]."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, update: Tensor) -> Tensor:
        states = _chunked(decay, update)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        later = decay if decay.dim() == 1 else F.pad(decay[:, 1:], (0, 0, 0, 1)).flip(1)  # a[t+1], last step first
        total = _chunked(later.conj(), gradient.flip(1)).flip(1)
        before = F.pad(states[:, :-1], (0, 0, 1, 0))
        for_decay = total * before.conj()
        return (for_decay.sum(dim=(0, 1)) if decay.dim() == 1 else for_decay), total


def _chunked(decay: Tensor, update: Tensor) -> Tensor:
    """`linear_scan` without a gradient of its own: 2·√T dependent operations instead of T."""
    batch, steps, hidden = update.shape
    length = max(1, math.isqrt(steps))
    count = -(-steps // length)
    padding = count * length - steps
    b = F.pad(update, (0, 0, 0, padding)).reshape(batch, count, length, hidden)
    if decay.dim() == 1:
        a = decay.expand(1, 1, length, hidden)
    else:
        a = F.pad(decay, (0, 0, 0, padding)).reshape(batch, count, length, hidden)
    local, reach = [b[:, :, 0]], [a[:, :, 0]]  # state of a chunk from zero; share of its start that is left
    for step in range(1, length):
        local.append(torch.addcmul(b[:, :, step], a[:, :, step], local[-1]))
        reach.append(a[:, :, step] * reach[-1])
    starts = [torch.zeros_like(local[-1][:, 0])]
    ends, left = local[-1], reach[-1].expand(-1, count, hidden)
    for chunk in range(count - 1):
        starts.append(torch.addcmul(ends[:, chunk], left[:, chunk], starts[-1]))
    start = torch.stack(starts, dim=1).unsqueeze(2)  # B count 1 H
    states = torch.addcmul(torch.stack(local, dim=2), torch.stack(reach, dim=2), start)
    return states.flatten(1, 2)[:, :steps]


# ---- Recurrences in two dimensions, by anti-diagonals, from one corner or from all four. ----
#
# Pixels of one anti-diagonal do not depend on each other, so a step is a whole anti-diagonal: H + W - 1 steps instead
# of H·W. The grid is skewed so that an anti-diagonal becomes a column: row i moves right by i.

FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
"""Axes (rows 0, columns 1) read backwards by the directions from top left, top right, bottom left, bottom right."""


def grid(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    initial: Tensor | None,
    last: bool,
) -> Pair:
    """See `operators.grid`."""
    directions, hidden = from_state.shape[0], from_state.shape[2] // 2
    batch, height, width, _ = inputs.shape
    products = F.linear(inputs, from_input, bias).chunk(directions, dim=-1)
    turned = [_turned(product, axes) for product, axes in zip(products, FLIPS, strict=False)]
    # diagonals directions B rows G·H
    steps = torch.stack([skew(product) for product in turned], dim=1).permute(3, 1, 0, 2, 4).contiguous()
    parts = 1 + CARRIED.get(cell, 0)
    state: State = tuple(_upcast(steps.new_zeros(directions, batch, height, hidden)) for _ in range(parts))
    weights = from_state.transpose(1, 2)  # directions 2·H G·H
    outputs, carried = [], []
    for diagonal, x in enumerate(steps.unbind(dim=0)):
        # Row i of the previous anti-diagonal is the left neighbour of row i here, and row i - 1 is the one above.
        above: State = tuple(F.pad(part[:, :, :-1], (0, 0, 1, 0)) for part in state)
        if initial is not None and diagonal < width:
            first = initial[:, diagonal].chunk(parts, dim=-1)
            above = tuple(
                torch.cat([one[None, :, None], part[:, :, 1:]], dim=2) for one, part in zip(first, above, strict=True)
            )
        neighbours = torch.cat([state[0], above[0]], dim=-1).flatten(1, 2)  # directions B·rows 2·H
        summed = torch.baddbmm(x.flatten(1, 2), neighbours, weights).unflatten(1, (batch, height))
        state = _started(GRID_CELLS[cell](_upcast(summed), state, above), diagonal)
        outputs.append(state[0])
        if parts > 1 and directions == 1 and diagonal >= height - 1:
            carried.append(state[1][0, :, -1])  # of the last row
    skewed = torch.stack(outputs, dim=3)  # directions B rows diagonals H
    states = [unskew(direction, width) for direction in skewed.unbind(dim=0)]
    if last:
        return torch.cat([direction[:, -1, -1] for direction in states], dim=-1), inputs.new_empty(batch, width, 0)
    back = [_turned(direction, axes) for direction, axes in zip(states, FLIPS, strict=False)]
    return torch.cat(back, dim=-1), torch.stack(carried, dim=1) if carried else inputs.new_empty(batch, width, 0)


def rnn2d(products: Tensor, left: State, above: State) -> State:
    """The state from V x + W [h left, h above] + b (..., gates·H) and both neighbours' states (..., H)."""
    return (torch.tanh(products),)


def mdlstm(products: Tensor, left: State, above: State) -> State:
    """The state h and the cell c, from the same arguments."""
    i, from_left, from_above, g, o = products.chunk(5, dim=-1)
    c = torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(from_left) * left[1] + torch.sigmoid(from_above) * above[1]
    return torch.sigmoid(o) * torch.tanh(c), c


GRID_CELLS: dict[str, Callable[[Tensor, State, State], State]] = {"rnn2d": rnn2d, "mdlstm": mdlstm}


def _turned(pixels: Tensor, axes: tuple[int, ...]) -> Tensor:
    return pixels.flip([axis + 1 for axis in axes])


def _started(state: State, diagonal: int) -> State:
    """A row that starts further right than this diagonal has no pixel on it yet, and must not feed its first."""
    rows = torch.arange(state[0].shape[2], device=state[0].device)
    started = (rows <= diagonal)[:, None]
    return tuple(torch.where(started, part, 0.0) for part in state)


def skew(pixels: Tensor) -> Tensor:
    """Moves row i right by i: (B, H, W, D) to (B, H, H + W - 1, D), padded with zeros."""
    batch, height, width, features = pixels.shape
    padded = F.pad(pixels, (0, 0, 0, height)).flatten(1, 2)[:, :-height]  # each row H + W long, the last H cut off
    return padded.reshape(batch, height, height + width - 1, features)


def unskew(skewed: Tensor, width: int) -> Tensor:
    """The inverse of `skew`."""
    batch, height, _, features = skewed.shape
    padded = F.pad(skewed.flatten(1, 2), (0, 0, 0, height))
    return padded.reshape(batch, height, height + width, features)[:, :, :width]


# ---- Recurrences over maps: the products are convolutions, those of the inputs of all steps at once. ----


def maps(
    cell: str,
    inputs: Tensor,
    from_input: Tensor,
    bias: Tensor,
    from_state: Tensor,
    vectors: Tensor | None,
    initial: Tensor | None,
    lengths: list[int],
) -> Pair:
    """See `operators.maps`."""
    batch, steps, height, width, _ = inputs.shape
    of_input, of_state = bias.split([from_input.shape[0], bias.shape[0] - from_input.shape[0]])
    products = _convolved(inputs.flatten(0, 1), from_input, of_input).unflatten(0, (batch, steps))
    parts, hidden = 1 + CARRIED.get(cell, 0), from_state.shape[1]
    if initial is None:
        state: State = tuple(_upcast(products.new_zeros(batch, height, width, hidden)) for _ in range(parts))
    else:
        state = initial.chunk(parts, dim=-1)
    ends = torch.tensor(lengths or [steps] * batch, device=inputs.device).reshape(-1, 1, 1, 1)
    outputs = []
    for step, x in enumerate(products.unbind(dim=1)):
        reached = MAP_CELLS[cell](_upcast(x), _upcast(_convolved(state[0], from_state, None)), of_state, vectors, state)
        if lengths:
            state = tuple(torch.where(step < ends, new, old) for new, old in zip(reached, state, strict=True))
            outputs.append(torch.where(step < ends, state[0], 0.0))
        else:
            state = reached
            outputs.append(state[0])
    return torch.stack(outputs, dim=1), state[1] if parts > 1 else inputs.new_empty(batch, height, width, 0)


def _convolved(map_: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """(B, H, W, D) to (B, H, W, blocks·hidden)."""
    found = F.conv2d(map_.permute(0, 3, 1, 2), weights, bias, padding=weights.shape[-1] // 2)
    return found.permute(0, 2, 3, 1)


def _conv_lstm(x: Tensor, h: Tensor, bias: Tensor, vectors: Tensor | None, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, dim=-1)
    c = state[1]
    to_input, to_forget, to_output = (0.0, 0.0, 0.0) if vectors is None else vectors.chunk(3)
    c = torch.sigmoid(f + to_forget * c) * c + torch.sigmoid(i + to_input * c) * torch.tanh(g)
    return torch.sigmoid(o + to_output * c) * torch.tanh(c), c


def _conv_gru(x: Tensor, h: Tensor, bias: Tensor, vectors: Tensor | None, state: State) -> State:
    (r, z, n), (of_r, of_z, of_n) = x.chunk(3, dim=-1), h.chunk(3, dim=-1)
    n = torch.tanh(n + torch.sigmoid(r + of_r) * (of_n + bias))
    return (n + torch.sigmoid(z + of_z) * (state[0] - n),)


MAP_CELLS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None, State], State]] = {
    "conv_lstm": _conv_lstm,
    "conv_lstm_peepholes": _conv_lstm,
    "conv_gru": _conv_gru,
}
"""From the products of input and state (B, H, W, blocks·hidden), the bias of those blocks that read the state alone,
weights by unit and the state: the next state."""
