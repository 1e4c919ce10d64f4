"""Assembly: a candidate is a composition of stem × scan × layer × readout, by name."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recursight.errors import InputError, nearest
from recursight.models.layers import LAYERS
from recursight.models.layers.recurrence import Bidirectional, Layer, Stack
from recursight.models.readouts import READOUTS, Last
from recursight.models.scans import GRIDS, SCANS, Scan
from recursight.models.stems import STEMS

# Of options; what else a layer of one's own may take is for itself to check.
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


class Network(nn.Module):
    """An image classifier: normalise, stem, scan, one recurrent stack and readout per view, linear head.

    Args:
        stem: (B, H, W, C) to (B, H', W', C').
        scan: the views of what the stem gives.
        stacks: for each view of the scan, states over time from steps.
        readouts: for each view, one vector from its states.
        head: logits from the vectors side by side.
        mean: per channel, on the scale 0 to 1.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        stem: nn.Module,
        scan: Scan,
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
        self.stacks = nn.ModuleList(stacks)
        self.readouts = nn.ModuleList(readouts)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, H, W, C), uint8 or floats from 0 to 1, to (B, outputs)."""
        vectors = []
        for stack, readout, view in zip(self.stacks, self.readouts, self.views(images), strict=True):
            # Where no other outputs are read, only the last ones are computed.
            last = isinstance(readout, Last)
            vectors.append(stack.last(view) if last else readout(stack(view)[0].flatten(1, -2)))  # B H
        return self._outputs(vectors)

    def views(self, images: Tensor) -> list[Tensor]:
        """What the recurrent stacks read."""
        floats = images.to(self.mean.dtype)
        if images.dtype == torch.uint8:
            floats = floats / 255
        views: list[Tensor] = self.scan(self.stem((floats - self.mean) / self.std))
        return views

    def read_out(self, states: Sequence[Tensor]) -> Tensor:
        """(B, outputs) from what each view's stack gives; grids are read as sequences of their pixels."""
        return self._outputs(
            [readout(view.flatten(1, -2)) for readout, view in zip(self.readouts, states, strict=True)]
        )

    def _outputs(self, vectors: Sequence[Tensor]) -> Tensor:
        outputs: Tensor = self.head(torch.cat(list(vectors), dim=-1))
        return outputs


def assemble(
    *,
    stem: str,
    channels: Sequence[int],
    scan: str,
    layer: str,
    hidden: Sequence[int],
    bidirectional: bool,
    dropout: float,
    readout: str,
    options: dict[str, Any],
    input_shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    downsample: str = "pool",
    patch_size: int = 4,
    permutation_seed: int = 0,
    reverse: bool = False,
    heads: int = 4,
) -> Network:
    """Builds a candidate with fresh weights, drawn from torch's global generator.

    Args:
        stem: a name of `STEMS`.
        channels: of the stem's convolutions, or of its patch embedding.
        scan: a name of `SCANS`.
        layer: a name of `LAYERS`, or `none`.
        hidden: size of the state of each stacked layer.
        bidirectional: whether each layer reads in both directions.
        dropout: between stacked layers and before the head.
        readout: a name of `READOUTS`.
        options: further arguments of the layer.
        input_shape: H, W, C of the images.
        classes: number of logits.
        mean: per channel, on the scale 0 to 1.
        std: likewise.
        downsample: how the convolutions halve the image, `pool` or `stride`.
        patch_size: side in pixels of the patches of a stem or scan.
        permutation_seed: of the order of the `permuted` scan.
        reverse: each view is read from its end.
        heads: of the `multihead` readout.

    Raises:
        InputError: opening with the argument that is wrong, and naming the nearest that exists.
    """
    _known("stem", stem, STEMS)
    _known("scan", scan, SCANS)
    _known("layer", layer, ["none", *LAYERS])
    _known("readout", readout, READOUTS)
    if layer != "none":
        _fits(layer, scan, hidden, options)
    stem_module = STEMS[stem](input_shape, channels, downsample, patch_size)
    grid = _shape(stem_module, input_shape)
    scan_module = Scan(scan, grid, patch_size=patch_size, permutation_seed=permutation_seed, reverse=reverse)
    views = [view.shape[1:] for view in scan_module(torch.zeros(1, *grid))]
    stacks: list[Stack] = []
    readouts: list[nn.Module] = []
    widths: list[int] = []
    for *sizes, features in views:
        if layer == "none":
            layers, width, finals = [], features, [-1]
        else:
            layers = _layers(layer, features, hidden, bidirectional, options)
            width, finals = layers[-1].width, layers[-1].finals(sizes)
        stacks.append(Stack(layers, dropout))
        readouts.append(READOUTS[readout](width, finals, heads))
        widths.append(width)
    return Network(
        stem=stem_module,
        scan=scan_module,
        stacks=stacks,
        readouts=readouts,
        head=nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(widths), classes)),
        mean=mean,
        std=std,
    )


@torch.no_grad()
def _shape(stem: nn.Module, input_shape: Sequence[int]) -> torch.Size:
    """H, W, C of what a stem gives; in eval mode, so that no statistics are kept of the blank image."""
    grid: Tensor = stem.eval()(torch.zeros(1, *input_shape))
    stem.train()
    return grid.shape[1:]


def _layers(
    layer: str, features: int, hidden: Sequence[int], bidirectional: bool, options: dict[str, Any]
) -> list[Layer]:
    def one(features: int, width: int) -> Layer:
        try:
            return LAYERS[layer](features, width, **options)
        except ValueError as error:
            sentence = str(error)
            raise InputError(f"options: {sentence}{'' if sentence.endswith(('.', '?')) else '.'}") from None

    layers: list[Layer] = []
    for width in hidden:
        made = one(features, width)
        if bidirectional and not made.causal:
            raise InputError(f"bidirectional: {layer!r} reads in all directions as it is; set bidirectional to false.")
        layers.append(Bidirectional(made, one(features, width)) if bidirectional else made)
        features = layers[-1].width
    return layers


def _known(key: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise InputError(f"{key}: {name!r} is unknown; {nearest(name, names)}")


def _fits(layer: str, scan: str, hidden: Sequence[int], options: dict[str, Any]) -> None:
    family = LAYERS[layer]
    if family.grid and scan not in GRIDS:
        raise InputError(f"scan: {layer!r} reads a grid; set scan to 'grid', not {scan!r}.")
    if scan in GRIDS and not family.grid:
        raise InputError(f"scan: {layer!r} reads a sequence; set scan to one, such as 'rows', not {scan!r}.")
    if family.grid and not family.gives_grid and len(hidden) > 1:
        raise InputError(f"hidden: {layer!r} gives a sequence, which it cannot read again; set hidden to one width.")
    signature = inspect.signature(family.__init__).parameters.values()
    defaults = {entry.name: entry.default for entry in signature if entry.kind is entry.KEYWORD_ONLY}
    for option, value in options.items():
        if option not in defaults:
            known = nearest(option, defaults) if defaults else "it has none."
            raise InputError(f"options.{option}: {layer!r} has no such option; {known}")
        wanted = type(defaults[option])
        if wanted in KINDS and type(value) not in ((float, int) if wanted is float else (wanted,)):
            raise InputError(f"options.{option}: {value!r} is not {KINDS[wanted]}.")
