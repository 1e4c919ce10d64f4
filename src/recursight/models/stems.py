"""Stems: what looks at the image before it is scanned. (B, H, W, C) in, (B, H', W', C') out.

Each is made from the image's H, W, C; keyword-only arguments are its options in `params.yaml`.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from recursight.models.scans import check_tiling, patches


class Conv(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation (Ioffe & Szegedy, 2015) and ReLU, each halving the sides.

    A block halves only while the shorter side is at least 8 pixels, so that small images keep enough steps to scan.

    Args:
        shape: H, W, C of the image.
        channels: output channels of each block.
        downsample: `pool`, a 2×2 max pooling; or `stride`, a convolution that moves by 2.
    """

    def __init__(self, shape: Sequence[int], *, channels: Sequence[int] = (16, 32), downsample: str = "pool") -> None:
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be a list of numbers of at least 1; it is {list(channels)}")
        if downsample not in ("pool", "stride"):
            raise ValueError(f"downsample must be pool or stride; it is {downsample!r}")
        super().__init__()
        height, width, features = shape
        blocks: list[nn.Module] = []
        for out in channels:
            halves = min(height, width) >= 8
            stride = 2 if halves and downsample == "stride" else 1
            blocks += [nn.Conv2d(features, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out)]
            if halves and downsample == "pool":
                blocks.append(nn.MaxPool2d(2))  # before ReLU: the result is the same, with a quarter to rectify
            blocks.append(nn.ReLU())
            if halves:
                height, width = ((height + 1) // 2, (width + 1) // 2) if stride == 2 else (height // 2, width // 2)
            features = out
        self.blocks = nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.blocks(image.permute(0, 3, 1, 2))  # B C H W, in channels-last memory
        return features.permute(0, 2, 3, 1)


class Patches(nn.Module):
    """Patch embedding: one product of each square patch (Dosovitskiy et al., 2021, arXiv:2010.11929, eq. 1).

    Without the position embedding of that equation: a recurrence knows the position from the order of reading.

    Args:
        shape: H, W, C of the image.
        patch_size: side of a patch in pixels.
        width: of the embedding.

    Raises:
        ValueError: if patches do not tile the image.
    """

    def __init__(self, shape: Sequence[int], *, patch_size: int = 4, width: int = 32) -> None:
        check_tiling(shape, patch_size)
        if width < 1:
            raise ValueError(f"width must be at least 1; it is {width}")
        super().__init__()
        self.patch_size = patch_size
        self.embed = nn.Linear(patch_size * patch_size * shape[2], width)

    def forward(self, image: Tensor) -> Tensor:
        embedded: Tensor = self.embed(patches(image, self.patch_size))
        return embedded


def none(shape: Sequence[int]) -> nn.Module:
    """The image as it is."""
    return nn.Identity()


STEMS: dict[str, Callable[..., nn.Module]] = {
    "none": none,
    "conv": Conv,
    "patches": Patches,
}
