"""Augmentation on the device: a random shift, turn and mirroring of each image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(
    images: Tensor,
    lengths: Tensor | None = None,
    *,
    shift_pixels: float,
    rotate_degrees: float,
    flip: bool,
    generator: torch.Generator,
) -> Tensor:
    """Moves, turns and mirrors each example by its own random draw; what enters from outside is black.

    Args:
        images: (F, H, W, C), uint8: the frames of all examples.
        lengths: frames of each example, which are all changed alike; None for one each.
        shift_pixels: largest move along each axis.
        rotate_degrees: largest turn to either side.
        flip: mirror left and right with probability one half.
        generator: on the CPU, so that a seed gives the same draws on every device.

    Returns:
        (F, H, W, C), floats from 0 to 1; or the images as they were if nothing is asked for.
    """
    if not (shift_pixels or rotate_degrees or flip):
        return images
    frames, height, width, _ = images.shape
    batch = frames if lengths is None else len(lengths)
    draws = torch.rand(4, batch, generator=generator) * 2 - 1  # uniform on (-1, 1): turn, right, down, mirror
    turn = draws[0] * math.radians(rotate_degrees)
    right, down = draws[1] * shift_pixels * 2 / width, draws[2] * shift_pixels * 2 / height
    mirror = torch.where(draws[3] < 0, -1.0, 1.0) if flip else torch.ones(batch)
    cosine, sine = turn.cos(), turn.sin()
    # In grid_sample's coordinates both axes run from -1 to 1, so a turn of a non-square image carries its aspect.
    across = torch.stack([mirror * cosine, -mirror * sine * height / width, right], dim=-1)
    along = torch.stack([sine * width / height, cosine, down], dim=-1)
    placement = torch.stack([across, along], dim=1)  # B 2 3
    if lengths is not None:
        placement = placement.repeat_interleave(lengths, dim=0)  # F 2 3
    if images.device.type == "cuda":  # from other memory, a copy waits for all that the device still has to do
        placement = placement.pin_memory().to(images.device, non_blocking=True)
    channels_first = images.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(placement.to(images.device), list(channels_first.shape), align_corners=False)
    moved = F.grid_sample(channels_first, grid, align_corners=False).permute(0, 2, 3, 1)
    # In memory too channels come last, even a single one: by its strides torch chooses the layout of all convolutions.
    return moved.clone(memory_format=torch.contiguous_format)
