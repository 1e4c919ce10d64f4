"""Stems: what looks at the image before it is scanned. (B, H, W, C) in, (B, H', W', C') out."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Conv(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation (Ioffe & Szegedy, 2015), ReLU and 2×2 max pooling.

    A block pools only while its shorter side is at least 8 pixels, so that small images keep enough steps to scan.

    Args:
        shape: H, W, C of the image.
        channels: output channels of each block.
    """

    def __init__(self, shape: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        height, width, features = shape
        blocks: list[nn.Module] = []
        for out in channels:
            blocks += [nn.Conv2d(features, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            if min(height, width) >= 8:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            features = out
        self.blocks = nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.blocks(image.permute(0, 3, 1, 2))  # B C H W, in channels-last memory
        return features.permute(0, 2, 3, 1)


def none(shape: Sequence[int], channels: Sequence[int]) -> nn.Module:
    """The image as it is."""
    return nn.Identity()


STEMS: dict[str, Callable[[Sequence[int], Sequence[int]], nn.Module]] = {"none": none, "conv": Conv}
