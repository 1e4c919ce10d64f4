"""Animated GIF, WebP and PNG, and TIFF with several pages, decoded by Pillow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from recursight.data import images
from recursight.data.clips.opened import MAX_CLIP_PIXELS, BadClip, Opened, even_times, require_size

_UNHURRIED_SECONDS = 0.1  # what browsers show a frame for that states no duration


class Animation(Opened):
    """An image with frames.

    Durations stand in the frames, so that a first pass reads them.

    Args:
        source: a file, or its content.
        rate: frames per second of pages, which have no durations.
        max_pixels: frames × height × width, at most.

    Raises:
        BadClip: if it cannot be read, or exceeds a limit.
    """

    def __init__(self, source: Path | bytes, rate: float, max_pixels: int = MAX_CLIP_PIXELS) -> None:
        self._source = source
        with self._opened() as opened:
            count = _count(opened)
            self.height, self.width = opened.height, opened.width
            require_size(self.height, self.width, count, max_pixels)
            self.channels = 1 if opened.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L") else 3
            if opened.format in ("GIF", "PNG", "WEBP"):
                seconds = self._durations(opened, count)
                self.times = np.cumsum(seconds) - seconds
            else:
                self.times, self.nominal_rate = even_times(count, rate), rate

    def frames(self, wanted: np.ndarray, grey: bool) -> Iterator[tuple[int, np.ndarray]]:
        with self._opened() as opened:
            for number in range(len(wanted)):
                if wanted[number]:
                    yield number, self._pixels(opened, number)

    def _pixels(self, opened: Image.Image, number: int) -> np.ndarray:
        try:
            opened.seek(number)
            if (opened.height, opened.width) != (self.height, self.width):
                raise BadClip(f"changes its size at frame {number}.")
            return images.as_pixels(opened.copy(), "rgb" if self.channels == 3 else "grey")
        except BadClip:
            raise
        except images.BadImage as bad:
            raise BadClip(f"has a frame {number} that {bad}") from None
        except Exception as error:  # Pillow's parsers raise almost any exception on malformed bytes
            raise BadClip(f"is damaged at frame {number} of {len(self.times)}: {images.reason(error)}") from None

    def _durations(self, opened: Image.Image, count: int) -> np.ndarray:
        seconds = np.empty(count)
        try:
            for number, frame in enumerate(ImageSequence.Iterator(opened)):
                if frame.format == "WEBP":
                    frame.load()  # states the duration only then
                seconds[number] = (frame.info.get("duration") or 0) / 1000 or _UNHURRIED_SECONDS
        except Exception as error:
            raise BadClip(f"cannot be decoded: {images.reason(error)}") from None
        return seconds

    def _opened(self) -> Any:
        return images.open_image(self._source)


def frames_in(path: Path) -> int | None:
    """Number of frames of an image, from its structure; None if it cannot be read."""
    try:
        with images.open_image(path) as image:
            return _count(image)
    except images.BadImage:
        return None


def _count(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # some kinds find out by reading the whole file
        raise BadClip(f"cannot be decoded: {images.reason(error)}") from None
