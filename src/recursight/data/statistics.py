"""Statistics of single images, with which drift is detected without storing the images.

They are computed from sums of integers, which are exact, so they do not depend on the batch.
"""

from functools import reduce
from math import prod

import numpy as np

DARK, BRIGHT = 64, 192  # grey levels: limits of the lowest and the highest quarter
CHUNK_BYTES = 1 << 16  # of pixels at a time: intermediate results then fit into the CPU cache


def image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the statistics of each image.

    Light: `brightness` (mean, on the scale 0 to 1), `contrast` (standard deviation), `dark` and `bright` (share of
    pixels in the lowest and highest quarter of grey levels). Texture: `edges_across` and `edges_down` (mean difference
    between neighbours in a row and in a column). Form, with brightness as mass: `centre_x`, `centre_y` (-1 to 1, from
    left to right and top to bottom), `upright` (how much more it spreads down than across, -1 to 1) and `slant`
    (correlation of the two, as twice the covariance over the sum of variances, -1 to 1; a stroke from top left to
    bottom right is above 0). For colour images also `colour` (mean difference between the strongest and the weakest
    channel).

    Args:
        images: uint8, N H W C, as a model takes them.

    Returns:
        Name to float32 values, N each; the names depend on the number of channels alone.
    """
    count = len(images)
    step = max(1, CHUNK_BYTES // max(1, images[:1].nbytes))
    chunks = [_of_chunk(images[start : start + step]) for start in range(0, max(count, 1), step)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]).astype(np.float32) for name in chunks[0]}


def _of_chunk(images: np.ndarray) -> dict[str, np.ndarray]:
    count, height, width, channels = images.shape
    pixels = height * width
    planes = [images[..., channel] for channel in range(channels)]
    grey = planes[0] if channels == 1 else reduce(np.add, planes, np.zeros_like(planes[0], np.uint16))
    full = 255 * channels  # of `grey`
    moments = _moments(grey)
    flat = images.reshape(count, pixels * channels)
    values = _form(moments, height, width) | {
        "brightness": moments[:, 0] / (pixels * full),
        "contrast": _contrast(images, moments[:, 0] / flat.shape[1]),
        "dark": np.count_nonzero(flat < DARK, axis=1) / flat.shape[1],
        "bright": np.count_nonzero(flat >= BRIGHT, axis=1) / flat.shape[1],
        "edges_across": _edges(grey, 2, full),
        "edges_down": _edges(grey, 1, full),
    }
    if channels > 1:
        spread = reduce(np.maximum, planes) - reduce(np.minimum, planes)
        values["colour"] = spread.sum(axis=(1, 2), dtype=np.int64) / (pixels * 255)
    return values


def _moments(grey: np.ndarray) -> np.ndarray:
    """N × 6: the moments 1, x, y, xx, yy, xy of each image.

    Coordinates are twice the distance from the middle. The sums stay below 2^53, so float64 holds them exactly.
    """
    down, across = (
        np.arange(1.0 - length, length, 2) ** np.arange(3)[:, None]  # powers 0, 1, 2
        for length in grey.shape[1:]
    )
    values = grey.astype(np.float64)
    rows = [np.vecdot(values, power) for power in across]  # row by row: larger products would start threads
    return np.stack([np.vecdot(rows[x], down[y]) for y, x in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (1, 1))], axis=1)


def _form(moments: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """Centre and covariance of the mass; a black image has its centre in the middle, and no direction."""
    mass = np.maximum(moments[:, :1], 1)
    x, y, xx, yy, xy = (moments[:, 1:] / mass).T
    across, down = xx - x * x, yy - y * y
    spread = np.maximum(across + down, 1e-9)
    return {
        "centre_x": x / width,
        "centre_y": y / height,
        "upright": (down - across) / spread,
        "slant": 2 * (xy - x * y) / spread,
    }


def _contrast(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    values = images.reshape(*images.shape[:2], prod(images.shape[2:])).astype(np.float64)
    squares = np.vecdot(values, values).sum(axis=1) / prod(images.shape[1:])
    deviation: np.ndarray = np.sqrt(np.maximum(squares - mean**2, 0)) / 255
    return deviation


def _edges(grey: np.ndarray, axis: int, full: int) -> np.ndarray:
    """Mean absolute difference of neighbours along an axis; 0 where there is one pixel only."""
    if grey.shape[axis] < 2:
        return np.zeros(len(grey))
    after = grey[:, 1:] if axis == 1 else grey[:, :, 1:]
    before = grey[:, :-1] if axis == 1 else grey[:, :, :-1]
    difference = np.maximum(after, before) - np.minimum(after, before)  # stays unsigned
    steps = difference.shape[1] * difference.shape[2]
    mean: np.ndarray = difference.sum(axis=(1, 2), dtype=np.int64) / (steps * full)
    return mean
