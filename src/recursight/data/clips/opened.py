"""What every kind of clip gives: size and times of its frames before any is decoded, then its frames."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from recursight.data.images import BadImage

MAX_FRAMES = 4_000_000  # 37 hours at 30 frames per second
MAX_FRAME_PIXELS = 4096 * 2304  # a decoder keeps up to 17 frames
MAX_CLIP_PIXELS = 1 << 40  # frames × height × width
FASTEST_RATE = 1000.0


class BadClip(BadImage):
    """A clip cannot be used; the message says why, without naming the clip."""


class Opened(ABC):
    """An opened clip.

    Attributes:
        height: of every frame, in pixels.
        width: of every frame, in pixels.
        channels: 1 or 3.
        times: seconds from the first frame, float64, ascending; one for each frame.
        nominal_rate: frames per second, where the file states it or the caller assumes it.
        tick: the unit, in seconds, that the file rounds its times to.
    """

    height: int
    width: int
    channels: int
    times: np.ndarray
    nominal_rate: float | None = None
    tick: float = 0.0

    @abstractmethod
    def frames(self, wanted: np.ndarray, grey: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes the clip once and yields number and pixels (uint8, H W C) of wanted frames, in ascending order.

        Args:
            wanted: for each frame, whether it is wanted.
            grey: return one channel, if that can be had without the colours.

        Raises:
            BadClip: if a frame is damaged or missing.
        """

    def close(self) -> None:  # noqa: B027 - most kinds keep nothing open
        """Closes its file."""


def require_size(height: int, width: int, frames: int, max_pixels: int = MAX_CLIP_PIXELS) -> None:
    """Refuses what is too large to decode, from what a header states.

    Raises:
        BadClip: with the limit.
    """
    if min(height, width) < 1:
        raise BadClip(f"has frames of {height}×{width} pixels.")
    if height * width > MAX_FRAME_PIXELS:
        raise BadClip(f"has frames of {height}×{width} pixels; at most {MAX_FRAME_PIXELS:,} pixels are possible.")
    if frames < 1:
        raise BadClip("has no frames.")
    if frames > MAX_FRAMES:
        raise BadClip(f"has more than {MAX_FRAMES:,} frames; cut it into parts.")
    if frames * height * width > max_pixels:
        raise BadClip(f"has {frames:,} frames of {height}×{width}, more than {max_pixels:,} pixels; cut it into parts.")


def even_times(frames: int, rate: float) -> np.ndarray:
    return np.arange(frames) / rate
