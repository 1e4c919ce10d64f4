"""Figures of images that shift when the images do."""

import numpy as np


def image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Name to one float32 value per image, on the scale 0 to 1, of uint8 images (N, H, W, C).

    `brightness` is the mean and `contrast` the standard deviation of all values; the edges are the mean absolute
    differences of neighbours along an axis, 0 where the images are one pixel wide.
    """
    values = images.astype(np.float32) / 255
    inner = tuple(range(1, images.ndim))
    return {
        "brightness": values.mean(axis=inner),
        "contrast": values.std(axis=inner),
        "horizontal_edges": _mean_difference(values, axis=2),
        "vertical_edges": _mean_difference(values, axis=1),
    }


def _mean_difference(values: np.ndarray, axis: int) -> np.ndarray:
    if values.shape[axis] < 2:
        return np.zeros(len(values), np.float32)
    means: np.ndarray = np.abs(np.diff(values, axis=axis)).mean(axis=tuple(range(1, values.ndim)))
    return means
