"""The equations of every layer once more, as its paper writes them: one step or pixel at a time, and of the layer
itself nothing but its weights and options. What the layers are tested against."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, sigmoid, tanh
from torch.nn.functional import gelu, layer_norm, relu

Reading = Callable[[Any, Tensor], Tensor]


def each_step(x: Tensor, *state: Tensor, by: Callable[..., tuple[Tensor, ...]]) -> Tensor:
    """The first part of the state after each step of x (B, T, D)."""
    outputs = []
    for t in range(x.shape[1]):
        state = by(x[:, t], *state)
        outputs.append(state[0])
    return torch.stack(outputs, dim=1)


def zero(layer: Any, x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], layer.hidden)


def torch_weights(layer: Any) -> list[Tensor]:
    return [layer.rnn.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def elman(layer: Any, x: Tensor) -> Tensor:
    v, w, b, b2 = torch_weights(layer)
    f = {"relu": relu, "tanh": tanh}[layer.activation]
    return each_step(x, zero(layer, x), by=lambda x, h: (f(x @ v.T + h @ w.T + b + b2),))


def lstm(layer: Any, x: Tensor) -> Tensor:
    v, w, b, b2 = torch_weights(layer)

    def step(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = (x @ v.T + h @ w.T + b + b2).chunk(4, dim=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    return each_step(x, zero(layer, x), zero(layer, x), by=step)


def gru(layer: Any, x: Tensor) -> Tensor:
    v, w, b, b2 = torch_weights(layer)

    def step(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        r, z, n = (x @ v.T + b).chunk(3, dim=1)
        r2, z2, n2 = (h @ w.T + b2).chunk(3, dim=1)
        r, z = sigmoid(r + r2), sigmoid(z + z2)
        return ((1 - z) * tanh(n + r * n2) + z * h,)

    return each_step(x, zero(layer, x), by=step)


def indrnn(layer: Any, x: Tensor) -> Tensor:
    v, b, u = layer.input.weight, layer.input.bias, layer.recurrent
    f = {"relu": relu, "tanh": tanh}[layer.activation]
    return each_step(x, zero(layer, x), by=lambda x, h: (f(x @ v.T + u * h + b),))


def mingru(layer: Any, x: Tensor) -> Tensor:
    def step(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        z, candidate = (x @ layer.input.weight.T + layer.input.bias).chunk(2, dim=1)
        return ((1 - sigmoid(z)) * h + sigmoid(z) * candidate,)

    return each_step(x, zero(layer, x), by=step)


def minlstm(layer: Any, x: Tensor) -> Tensor:
    def step(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        f, i, candidate = (x @ layer.input.weight.T + layer.input.bias).chunk(3, dim=1)
        f, i = sigmoid(f), sigmoid(i)
        return ((f * h + i * candidate) / (f + i),)

    return each_step(x, zero(layer, x), by=step)


def sru(layer: Any, x: Tensor) -> Tensor:
    v, v2 = layer.recurrent
    skip = x if x.shape[2] == layer.hidden else x @ layer.highway.weight.T

    def step(both: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        x, skip = both.split([both.shape[1] - layer.hidden, layer.hidden], dim=1)
        f, r, candidate = (x @ layer.input.weight.T + layer.input.bias).chunk(3, dim=1)
        f, r = sigmoid(f + v * c), sigmoid(r + v2 * c)
        c = f * c + (1 - f) * candidate
        return r * c + (1 - r) * 3**0.5 * skip, c

    return each_step(torch.cat([x, skip], dim=2), zero(layer, x), zero(layer, x), by=step)


def qrnn(layer: Any, x: Tensor) -> Tensor:
    before = [x.new_zeros(x.shape[0], 1, x.shape[2])] * (layer.window - 1)
    seen = torch.cat([*before, x], dim=1)
    windows = torch.stack([seen[:, t : t + layer.window].flatten(1) for t in range(x.shape[1])], dim=1)

    def step(window: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        z, f, o = (window @ layer.input.weight.T + layer.input.bias).chunk(3, dim=1)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * tanh(z)
        return sigmoid(o) * c, c

    return each_step(windows, zero(layer, x), zero(layer, x), by=step)


def lru(layer: Any, x: Tensor) -> Tensor:
    eigenvalue = torch.exp(torch.complex(-layer.decay.exp(), layer.angle.exp()))
    scale = torch.sqrt(1 - eigenvalue.abs() ** 2)
    b = torch.complex(*layer.input.weight.chunk(2, dim=0))
    real, negative_imaginary, d = layer.output.weight.split([layer.pairs, layer.pairs, x.shape[2]], dim=1)
    c = torch.complex(real, -negative_imaginary)

    def step(x: Tensor, h: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        s = eigenvalue * s + scale * (x.to(s.dtype) @ b.T)
        y, g = ((s @ c.T).real + x @ d.T + layer.output.bias).chunk(2, dim=1)
        return y * sigmoid(g) + (x if x.shape[1] == layer.hidden else 0), s

    return each_step(x, zero(layer, x), torch.zeros(x.shape[0], layer.pairs, dtype=b.dtype), by=step)


def slstm(layer: Any, x: Tensor) -> Tensor:
    """Without the stabiliser, whose point is that it changes nothing."""

    def step(x: Tensor, h: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        products = x @ layer.input.weight.T + layer.input.bias + h @ layer.recurrent.weight.T
        i, f, z, o = products.chunk(4, dim=1)
        c, n = sigmoid(f) * c + i.exp() * tanh(z), sigmoid(f) * n + i.exp()
        return sigmoid(o) * c / n, c, n

    return each_step(x, *[zero(layer, x)] * 3, by=step)


def over_pixels(layer: Any, x: Tensor, cell: Callable[..., tuple[Tensor, ...]], parts: int) -> Tensor:
    """Row by row, pixel by pixel, from each corner in turn."""
    corners: list[list[int]] = [[], [2], [1], [1, 2]][: layer.directions]
    weights = layer.input.weight.chunk(layer.directions), layer.input.bias.chunk(layer.directions), layer.recurrent
    found = []
    for corner, v, b, w in zip(corners, *weights, strict=True):
        turned = x.flip(corner)
        from_left, from_above = w.split(layer.hidden, dim=1)
        outside = (zero(layer, x),) * parts
        states: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                left, above = states.get((i, j - 1), outside), states.get((i - 1, j), outside)
                products = turned[:, i, j] @ v.T + b + left[0] @ from_left.T + above[0] @ from_above.T
                states[i, j] = cell(products, left, above)
        rows = [torch.stack([states[i, j][0] for j in range(x.shape[2])], dim=1) for i in range(x.shape[1])]
        found.append(torch.stack(rows, dim=1).flip(corner))
    return torch.cat(found, dim=3)


def rnn2d(layer: Any, x: Tensor) -> Tensor:
    return over_pixels(layer, x, lambda products, left, above: (tanh(products),), 1)


def mdlstm(layer: Any, x: Tensor) -> Tensor:
    def cell(products: Tensor, left: tuple[Tensor, ...], above: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        i, f, f2, g, o = products.chunk(5, dim=1)
        c = sigmoid(i) * tanh(g) + sigmoid(f) * left[1] + sigmoid(f2) * above[1]
        return sigmoid(o) * tanh(c), c

    return over_pixels(layer, x, cell, 2)


def both_directions(pair: Any, x: Tensor) -> Tensor:
    """Two sequence layers over x (B, T, D), the second from its end."""
    read = READINGS[type(pair.forward_layer).__name__.lower()]
    return torch.cat([read(pair.forward_layer, x), read(pair.backward_layer, x.flip(1)).flip(1)], dim=2)


def columns(pair: Any, x: Tensor) -> Tensor:
    return torch.stack([both_directions(pair, x[:, :, j]) for j in range(x.shape[2])], dim=2)


def rows(pair: Any, x: Tensor) -> Tensor:
    return torch.stack([both_directions(pair, x[:, i]) for i in range(x.shape[1])], dim=1)


def renet(layer: Any, x: Tensor) -> Tensor:
    return rows(layer.horizontal, columns(layer.vertical, x))


def sequencer(layer: Any, x: Tensor) -> Tensor:
    def norm(layer_: nn.LayerNorm, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[3:], layer_.weight, layer_.bias)

    def product(linear: Any, x: Tensor) -> Tensor:
        return x @ linear.weight.T + linear.bias

    if x.shape[3] != layer.hidden:
        x = product(layer.widen, x)
    normed = norm(layer.before_sweeps, x)
    y = x + product(layer.merge, torch.cat([columns(layer.vertical, normed), rows(layer.horizontal, normed)], dim=3))
    inner, _, outer = layer.mlp
    return y + product(outer, gelu(product(inner, norm(layer.before_mlp, y))))


def hierarchical(layer: Any, x: Tensor) -> Tensor:
    read = READINGS[type(layer.pixels).__name__.lower()]
    last = torch.stack([read(layer.pixels, x[:, i])[:, -1] for i in range(x.shape[1])], dim=1)
    return read(layer.rows, last)


def average(layer: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.shape[1])], dim=1)


def convolved(map_: Tensor, weights: Tensor) -> Tensor:
    """One pixel of a window after the other: (B, H, W, D) to (B, H, W, rows of the weights)."""
    size, (height, width) = weights.shape[-1], map_.shape[1:3]
    padded = nn.functional.pad(map_, (0, 0, *[size // 2] * 4))
    return sum(
        padded[:, i : i + height, j : j + width] @ weights[:, :, i, j].T for i in range(size) for j in range(size)
    )


def zero_map(layer: Any, x: Tensor) -> Tensor:
    return x.new_zeros(*x[:, 0].shape[:-1], layer.hidden)


def conv_lstm(layer: Any, x: Tensor) -> Tensor:
    v, w, b = layer.input.weight, layer.recurrent.weight, layer.input.bias
    peepholes = x.new_zeros(3 * layer.hidden) if layer.peepholes is None else layer.peepholes
    to_i, to_f, to_o = peepholes.chunk(3)

    def step(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = (convolved(x, v) + convolved(h, w) + b).chunk(4, dim=-1)
        now = sigmoid(f + to_f * c) * c + sigmoid(i + to_i * c) * tanh(g)
        return sigmoid(o + to_o * now) * tanh(now), now

    return each_step(x, zero_map(layer, x), zero_map(layer, x), by=step)


def conv_gru2d(layer: Any, x: Tensor) -> Tensor:
    v, w, b = layer.input.weight, layer.recurrent.weight, layer.input.bias

    def step(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        (r, z, n), (r2, z2, n2) = (convolved(x, v) + b).chunk(3, dim=-1), convolved(h, w).chunk(3, dim=-1)
        r, z = sigmoid(r + r2), sigmoid(z + z2)
        return ((1 - z) * tanh(n + r * (n2 + layer.state_bias)) + z * h,)

    return each_step(x, zero_map(layer, x), by=step)


READINGS: dict[str, Reading] = {
    "average": average,
    "conv_lstm": conv_lstm,
    "conv_gru2d": conv_gru2d,
    "elman": elman,
    "lstm": lstm,
    "gru": gru,
    "indrnn": indrnn,
    "mingru": mingru,
    "minlstm": minlstm,
    "sru": sru,
    "qrnn": qrnn,
    "lru": lru,
    "slstm": slstm,
    "rnn2d": rnn2d,
    "mdlstm": mdlstm,
    "renet": renet,
    "sequencer": sequencer,
    "hierarchical": hierarchical,
}
