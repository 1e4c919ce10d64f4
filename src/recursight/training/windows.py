"""Windows: long examples cut into overlapping parts for training. They are views; the store holds whole streams."""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Parts of examples, one after another.

    Attributes:
        example: position of the example that it is a part of.
        offset: frames of the example before it.
        length: in frames.
    """

    example: np.ndarray
    offset: np.ndarray
    length: np.ndarray


def cut(lengths: np.ndarray, frames: int, overlap: int) -> Windows:
    """Cuts what is longer than a window; the last window of an example ends where the example does.

    Args:
        lengths: of the examples, in frames.
        frames: of a window; 0 cuts nothing.
        overlap: frames that a window shares with the one before.
    """
    step = max(1, frames - overlap)
    more = np.ceil(np.maximum(lengths - frames, 0) / step).astype(np.int64) if frames else np.zeros_like(lengths)
    example = np.repeat(np.arange(len(lengths)), more + 1)
    number = np.arange(len(example)) - np.repeat(np.cumsum(more + 1) - more - 1, more + 1)
    length = np.minimum(lengths, frames or lengths.max(initial=0))[example]
    return Windows(example, np.minimum(number * step, lengths[example] - length), length)


def of_parts(packed: np.ndarray, lengths: np.ndarray, windows: Windows) -> np.ndarray:
    """Values of the frames of each window, packed; from those of the frames of the whole examples, packed."""
    starts = np.cumsum(lengths) - lengths
    chosen: np.ndarray = packed[frame_numbers(starts[windows.example] + windows.offset, windows.length)]
    return chosen


def frame_numbers(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of all frames, one example after another; `first` numbers the first frame of each."""
    starts = np.cumsum(lengths) - lengths
    numbers: np.ndarray = np.repeat(first - starts, lengths) + np.arange(lengths.sum())
    return numbers
