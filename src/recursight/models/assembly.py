"""Assembly: a candidate is a composition of stem × scan × layer × readout, by name."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recursight.errors import InputError, nearest
from recursight.models.layers import LAYERS
from recursight.models.layers.recurrence import Bidirectional, Recurrence, Stack
from recursight.models.readouts import READOUTS
from recursight.models.scans import SCANS
from recursight.models.stems import STEMS


class Classifier(nn.Module):
    """An image classifier: normalise, stem, scan, one recurrent stack and readout per view, linear head.

    Args:
        stem: (B, H, W, C) to (B, H', W', C').
        scan: name of the scan.
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
        scan: str,
        stacks: Sequence[nn.Module],
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
        """Images (B, H, W, C), uint8 or floats from 0 to 1, to logits (B, classes)."""
        states = [stack(view) for stack, view in zip(self.stacks, self.views(images), strict=True)]
        return self.classify(states)

    def views(self, images: Tensor) -> list[Tensor]:
        """What the recurrent stacks read."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return SCANS[self.scan](self.stem((images - self.mean) / self.std))

    def classify(self, states: Sequence[Tensor]) -> Tensor:
        """Logits from the states of each view; grids are read as sequences of their pixels."""
        vectors = [
            readout(view.flatten(1, -2)) for readout, view in zip(self.readouts, states, strict=True)
        ]  # each B H
        logits: Tensor = self.head(torch.cat(vectors, dim=-1))
        return logits


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
) -> Classifier:
    """Builds a candidate with fresh weights, drawn from torch's global generator.

    Args:
        stem: a name of `STEMS`.
        channels: of the stem's convolutions.
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

    Raises:
        InputError: opening with the argument that is wrong, and naming the nearest that exists.
    """
    _known("stem", stem, STEMS)
    _known("scan", scan, SCANS)
    _known("layer", layer, ["none", *LAYERS])
    _known("readout", readout, READOUTS)
    if layer != "none":
        _fits(layer, scan, options)
    stem_module = STEMS[stem](input_shape, channels)
    with torch.no_grad():
        stem_module.eval()
        views = SCANS[scan](stem_module(torch.zeros(1, *input_shape)))
        stem_module.train()
    if layer == "none":
        stacks: list[nn.Module] = [nn.Identity() for _ in views]
        width, directions = views[0].shape[-1], 1
    else:
        stacks = [_stack(layer, view.shape[-1], hidden, bidirectional, dropout, options) for view in views]
        directions = 2 if bidirectional else 1
        width = hidden[-1] * directions
    widths = [view.shape[-1] if layer == "none" else width for view in views]
    return Classifier(
        stem=stem_module,
        scan=scan,
        stacks=stacks,
        readouts=[READOUTS[readout](width, directions) for width in widths],
        head=nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(widths), classes)),
        mean=mean,
        std=std,
    )


def _stack(
    layer: str, features: int, hidden: Sequence[int], bidirectional: bool, dropout: float, options: dict[str, Any]
) -> Stack:
    def recurrence(features: int, width: int) -> Recurrence:
        try:
            return LAYERS[layer](features, width, **options)
        except ValueError as error:
            raise InputError(f"options: {error}.") from None

    layers: list[Recurrence | Bidirectional] = []
    for width in hidden:
        onward = recurrence(features, width)
        layers.append(Bidirectional(onward, recurrence(features, width)) if bidirectional else onward)
        features = width * (2 if bidirectional else 1)
    return Stack(layers, dropout)


def _known(key: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise InputError(f"{key}: {name!r} is unknown; {nearest(name, names)}")


def _fits(layer: str, scan: str, options: dict[str, Any]) -> None:
    if LAYERS[layer].grid and scan != "grid":
        raise InputError(f"scan: {layer!r} reads a grid; set scan to 'grid', not {scan!r}.")
    if scan == "grid" and not LAYERS[layer].grid:
        raise InputError(f"scan: {layer!r} reads a sequence; set scan to one, such as 'rows', not 'grid'.")
    signature = inspect.signature(LAYERS[layer].__init__).parameters.values()
    names = [parameter.name for parameter in signature if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            known = nearest(option, names) if names else "it has none."
            raise InputError(f"options.{option}: {layer!r} has no such option; {known}")
