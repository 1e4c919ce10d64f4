"""Assembly: a candidate is a composition of stem × scan × layer × readout, by name; for clips, also over time."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recursight.errors import InputError, nearest
from recursight.models.clips import ClipNetwork
from recursight.models.layers import LAYERS, OVER_TIME_LAYERS
from recursight.models.layers.recurrence import Bidirectional, Layer, Stack, reverse
from recursight.models.readouts import OVER_TIME, READOUTS, Last, Middle
from recursight.models.scans import SCANS, Scan
from recursight.models.stems import STEMS

# Of options; what else a part of one's own may take is for itself to check.
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a name",
    tuple: "a list of whole numbers",
}


class Network(nn.Module):
    """Normalise, stem, scan, one recurrent stack and readout per view, linear head.

    Args:
        stem: (B, H, W, C) to (B, H', W', C').
        scan: the views of the stem's result.
        reverse: whether each view is read from its end; a grid from its last corner.
        stacks: for each view of the scan, outputs over time from steps.
        readouts: for each view, one vector from its outputs.
        head: (B, outputs) from the vectors side by side.
        mean: per channel, on the scale 0 to 1.
        std: per channel, on the same scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        stem: nn.Module,
        scan: Scan,
        reverse: bool,
        stacks: Sequence[Stack],
        readouts: Sequence[nn.Module],
        head: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.stem = stem
        self.scan = scan
        self.reverse = reverse
        self.stacks = nn.ModuleList(stacks)
        self.readouts = nn.ModuleList(readouts)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, H, W, C), uint8 or floats from 0 to 1, to (B, outputs)."""
        vectors = []
        for stack, readout, view in zip(self.stacks, self.readouts, self.views(images), strict=True):
            # Where no other outputs are read, only the last ones are computed.
            assert isinstance(stack, Stack)
            last = isinstance(readout, Last)
            vectors.append(stack.last(view) if last else readout(stack(view)[0].flatten(1, -2)))  # B H
        return self._outputs(vectors)

    def views(self, images: Tensor) -> list[Tensor]:
        """What the recurrent stacks read."""
        floats = images.to(self.mean.dtype)
        if images.dtype == torch.uint8:
            floats = floats / 255
        views: list[Tensor] = self.scan(self.stem((floats - self.mean) / self.std))
        return [reverse(view) for view in views] if self.reverse else views

    def read_out(self, states: Sequence[Tensor]) -> Tensor:
        """(B, outputs) from what each view's stack gives; grids are read as sequences of their pixels."""
        return self._outputs(
            [readout(view.flatten(1, -2)) for readout, view in zip(self.readouts, states, strict=True)]
        )

    def _outputs(self, vectors: Sequence[Tensor]) -> Tensor:
        outputs: Tensor = self.head(torch.cat(list(vectors), dim=-1))
        return outputs


class Maps(nn.Module):
    """A network's stem alone: (B, H, W, C) to (B, H', W', D)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        (maps,) = self.network.views(images)
        return maps


def assemble(
    architecture: Mapping[str, Any],
    *,
    input_shape: Sequence[int],
    outputs: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Network | ClipNetwork:
    """Builds a candidate with fresh weights, drawn from torch's global generator.

    Args:
        architecture: `stem`, `scan`, `layer` and `readout`, each a name in its table, or a name with options: `{name:
            {option: value}}`; `reverse`, whether each view is read from its end; `hidden`, size of the state of each
            stacked layer; `bidirectional`, whether each layer reads in both directions; `dropout`, between stacked
            layers and before the head; for clips `over_time`, with `layer`, `hidden`, `bidirectional`, `dropout` and
            `readout` of the frames' vectors.
        input_shape: H, W, C of the images.
        outputs: how many numbers the head gives.
        mean: per channel, on the scale 0 to 1.
        std: per channel, on the same scale.

    Raises:
        InputError: opening with the path of the key that is wrong, and naming the nearest that exists.
    """
    over_time = architecture.get("over_time")
    if over_time is None:
        return _network(architecture, input_shape, mean, std, lambda width: _head(architecture, width, outputs))[0]
    try:
        layer = Part.of("layer", over_time, LAYERS | OVER_TIME_LAYERS | {"none": none})
    except InputError as error:
        raise InputError(f"over_time.{error}") from None
    reads_maps = layer.name in OVER_TIME_LAYERS and OVER_TIME_LAYERS[layer.name].maps
    if reads_maps:
        _require_maps(layer.name, architecture)
    network, width = _network(architecture, input_shape, mean, std, lambda _: nn.Identity())
    frame_network = Maps(network) if reads_maps else network
    shape = _shape(frame_network, input_shape) if reads_maps else (width,)
    try:
        return _over_time(over_time, layer, frame_network, shape, outputs)
    except InputError as error:
        raise InputError(f"over_time.{error}") from None


def _require_maps(layer: str, architecture: Mapping[str, Any]) -> None:
    if architecture["scan"] != "grid" or architecture["layer"] != "none":
        raise InputError(f"over_time.layer: {layer!r} reads each frame's map; set scan to grid and layer to none.")


def _head(part: Mapping[str, Any], width: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Dropout(part["dropout"]), nn.Linear(width, outputs))


def _over_time(
    over_time: Mapping[str, Any], layer: "Part", frame_network: nn.Module, shape: Sequence[int], outputs: int
) -> ClipNetwork:
    readout = Part.of("readout", over_time, OVER_TIME)
    layers: list[Layer] = []
    width, finals = shape[-1], [-1]
    if layer.name != "none":
        layers = _layers(layer, width, over_time["hidden"], over_time["bidirectional"])
        if layers[0].grid or not (layers[0].causal or isinstance(layers[0], Bidirectional)):
            raise InputError(f"layer: {layer.name!r} reads grids; over time, choose a layer that reads sequences.")
        width, finals = layers[-1].width, layers[-1].finals([1])
    read = readout.make(width, finals)
    if isinstance(read, Middle) and layers:
        raise InputError("readout: 'middle' reads one frame alone, which leaves nothing to a layer; set layer to none.")
    return ClipNetwork(
        frame_network=frame_network,
        shape=shape,
        stack=Stack(layers, over_time["dropout"]),
        readout=read,
        head=_head(over_time, width, outputs),
    )


def _network(
    architecture: Mapping[str, Any],
    input_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    head: Callable[[int], nn.Module],
) -> tuple[Network, int]:
    """The network of an image, with a head made for the width of its vector; and that width."""
    stem = Part.of("stem", architecture, STEMS)
    scan = Part.of("scan", architecture, SCANS)
    layer = _layer_of(architecture)
    readout = Part.of("readout", architecture, READOUTS)
    hidden, bidirectional, dropout = (architecture[key] for key in ("hidden", "bidirectional", "dropout"))
    if layer.name != "none":
        _fits(layer.name, scan.name, hidden)
    stem_module = stem.make(input_shape)
    grid = _shape(stem_module, input_shape)
    scan_module = scan.make(grid)
    stacks: list[Stack] = []
    readouts: list[nn.Module] = []
    widths: list[int] = []
    for view in scan_module(torch.zeros(1, *grid)):
        *sizes, width = view.shape[1:]
        layers, finals = [], [-1]
        if layer.name != "none":
            layers = _layers(layer, width, hidden, bidirectional)
            width, finals = layers[-1].width, layers[-1].finals(sizes)
        stacks.append(Stack(layers, dropout))
        readouts.append(readout.make(width, finals))
        widths.append(width)
    network = Network(
        stem=stem_module,
        scan=scan_module,
        reverse=architecture["reverse"],
        stacks=stacks,
        readouts=readouts,
        head=head(sum(widths)),
        mean=mean,
        std=std,
    )
    return network, sum(widths)


def _layer_of(architecture: Mapping[str, Any]) -> "Part":
    """The layer that reads an image."""
    layer = Part.of("layer", architecture, LAYERS | OVER_TIME_LAYERS | {"none": none})
    if layer.name in OVER_TIME_LAYERS:
        raise InputError(f"layer: {layer.name!r} reads the frames of clips; set it as over_time.layer.")
    return layer


def workable_side(architecture: Mapping[str, Any]) -> int:
    """A side of square images that the candidate can read: whatever cuts, halves or divides them divides it."""
    stem = Part.of("stem", architecture, STEMS).settings
    scan = Part.of("scan", architecture, SCANS).settings
    readout = Part.of("readout", architecture, READOUTS).settings
    readouts = [readout] if _layer_of(architecture).name == "none" else []
    if over_time := architecture.get("over_time"):
        readouts.append(Part.of("readout", over_time, OVER_TIME).settings)
    heads: list[int] = [readout.get("heads", 1) for readout in readouts]
    sizes: tuple[int, ...] = (
        stem.get("patch_size", 1),
        scan.get("patch_size", 1),
        *heads,
        2 ** len(stem.get("channels", ())),
    )
    return 4 * math.prod(max(1, size) for size in sizes)


@dataclass(frozen=True)
class Part:
    """A part of a candidate: its name, and the options that it is made with.

    Attributes:
        path: of its key.
        name: in its table.
        maker: its row there; keyword-only arguments are its options.
        options: those that are given.
    """

    path: str
    name: str
    maker: Callable[..., Any]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, key: str, architecture: Mapping[str, Any], table: Mapping[str, Callable[..., Any]]) -> "Part":
        """Reads and checks a key of the architecture.

        Raises:
            InputError: if the name or an option is unknown, or an option is of another kind than its default.
        """
        given = architecture[key]
        if isinstance(given, str):
            name, options, path = given, {}, key
        else:
            ((name, options),) = given.items()
            path = f"{key}.{name}"
        if name not in table:
            raise InputError(f"{key}: {name!r} is unknown; {nearest(name, table)}")
        part = cls(path, name, table[name], options or {})
        part._check()
        return part

    @property
    def defaults(self) -> dict[str, Any]:
        # A class may take its arguments through a parent's constructor.
        signature = inspect.signature(self.maker).parameters.values()
        return {entry.name: entry.default for entry in signature if entry.kind is entry.KEYWORD_ONLY}

    @property
    def settings(self) -> dict[str, Any]:
        """The options, those not given with their defaults."""
        return self.defaults | dict(self.options)

    def make(self, *arguments: Any) -> Any:
        """Raises InputError for what the part refuses."""
        try:
            return self.maker(*arguments, **self.options)
        except ValueError as error:
            sentence = str(error)
            raise InputError(f"{self.path}: {sentence}{'' if sentence.endswith(('.', '?')) else '.'}") from None

    def _check(self) -> None:
        defaults = self.defaults
        for option, value in self.options.items():
            if option not in defaults:
                known = nearest(option, defaults) if defaults else "it has none."
                raise InputError(f"{self.path}.{option}: {self.name!r} has no such option; {known}")
            wanted = type(defaults[option])
            if wanted is tuple:
                fits = isinstance(value, (list, tuple)) and all(type(one) is int for one in value)
            else:
                fits = wanted not in KINDS or type(value) in ((float, int) if wanted is float else (wanted,))
            if not fits:
                raise InputError(f"{self.path}.{option}: {value!r} is not {KINDS[wanted]}.")


def none() -> None:
    """No layer."""


@torch.no_grad()
def _shape(module: nn.Module, input_shape: Sequence[int]) -> torch.Size:
    """Of what a stem or network gives for one image; in eval mode, so that no statistics are kept of the blank one."""
    found: Tensor = module.eval()(torch.zeros(1, *input_shape))
    module.train()
    return found.shape[1:]


def _layers(layer: Part, features: int, hidden: Sequence[int], bidirectional: bool) -> list[Layer]:
    layers: list[Layer] = []
    for width in hidden:
        made: Layer = layer.make(features, width)
        if bidirectional and not made.causal:
            raise InputError(
                f"bidirectional: {layer.name!r} reads in all directions as it is; set bidirectional to false."
            )
        layers.append(Bidirectional(made, layer.make(features, width)) if bidirectional else made)
        features = layers[-1].width
    return layers


def _fits(layer: str, scan: str, hidden: Sequence[int]) -> None:
    family = LAYERS[layer]
    if family.grid and not SCANS[scan].grid:
        raise InputError(f"scan: {layer!r} reads a grid; set scan to 'grid', not {scan!r}.")
    if SCANS[scan].grid and not family.grid:
        raise InputError(f"scan: {layer!r} reads a sequence; set scan to one, such as 'rows', not {scan!r}.")
    if family.grid and not family.gives_grid and len(hidden) > 1:
        raise InputError(f"hidden: {layer!r} gives a sequence, which it cannot read again; set hidden to one width.")
