"""One clip as the store takes it: resampled in time, cropped, resized, a frame at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recursight.data.clips import array, video
from recursight.data.clips.animation import Animation
from recursight.data.clips.array import Array
from recursight.data.clips.numbered import Numbered
from recursight.data.clips.opened import FASTEST_RATE, MAX_CLIP_PIXELS, MAX_FRAMES, BadClip, Opened
from recursight.data.clips.video import Video
from recursight.data.images import BadImage, Channels, Resize, decode, read_start

ASSUMED_RATE = 25.0
"""Frames per second of pages, arrays and folders of frames, which have no times, unless their list states the rate."""

_CHUNK_BYTES = 2_000_000
_SLACK = 0.05  # of a frame: times are rounded in lists and files


@dataclass(frozen=True)
class Conversion:
    """How frames of clips become frames of the store.

    Attributes:
        rate: frames per second; None keeps each clip's own.
        crop: top, left, height and width in pixels of the source, cut out before resizing; None keeps all.
        size: height and width; None keeps the original size.
        resize: how frames of another size are resized, see `images.decode`.
        channels: grey, rgb or keep. The grey of a video is its luma, as it is coded.
    """

    rate: float | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    resize: Resize = "pad"
    channels: Channels = "keep"


class Clip:
    """An opened clip: its sizes are known, its frames are decoded by iterating over it, once.

    The frame of the store at a time is the source's last frame that began at or before it. A source whose frames are
    evenly spaced, give or take half a frame, keeps each of them at its own rate; any other is resampled at the rate of
    its median interval.

    Attributes:
        count: number of frames.
        rate: frames per second.
        shape: H, W, C.
        source_shape: the same of the source's frames.
        seconds: duration of the source.
    """

    def __init__(self, opened: Opened, conversion: Conversion) -> None:
        self._opened, self._conversion = opened, conversion
        self._times, own_rate = _regular(opened)
        self.source_shape = (opened.height, opened.width, opened.channels)
        self.seconds = float(self._times[-1]) + 1 / own_rate
        self.rate = conversion.rate or own_rate
        self.count = max(1, int(np.ceil(self.seconds * self.rate - _SLACK)))
        if self.count > MAX_FRAMES:
            raise BadClip(f"has {self.seconds:,.0f} seconds, more than {MAX_FRAMES:,} frames; cut it into parts.")
        due = np.arange(self.count) / self.rate + _SLACK / max(self.rate, own_rate)
        self._chosen = np.maximum(np.searchsorted(self._times, due, side="right") - 1, 0)
        self.shape = self._shape()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decodes and yields the frames, uint8, H W C.

        Raises:
            BadClip: if a frame is damaged.
        """
        wanted = np.zeros(len(self._times), bool)
        wanted[self._chosen] = True
        grey = self._conversion.channels == "grey"
        done, last = 0, None
        for number, pixels in self._opened.frames(wanted, grey):
            due = int(np.searchsorted(self._chosen, number))  # frames of the store before this one
            frame = self._converted(pixels)
            for _ in range(done, due):  # lasts longer, or the decoder left frames out
                yield frame if last is None else last
            done, last = max(done, due), frame
        if last is None:
            raise BadClip("has no frames that can be decoded.")
        for _ in range(done, self.count):
            yield last

    def chunks(self) -> Iterator[np.ndarray]:
        """The frames, about two megabytes at a time: uint8, F H W C."""
        length = max(1, _CHUNK_BYTES // int(np.prod(self.shape)))
        chunk: list[np.ndarray] = []
        for frame in self:
            chunk.append(frame)
            if len(chunk) == length:
                yield np.stack(chunk)
                chunk = []
        if chunk:
            yield np.stack(chunk)

    def frame_at(self, seconds: float) -> int:
        """The first frame of the store that is at or after a time."""
        return int(np.clip(np.ceil(seconds * self.rate - _SLACK), 0, self.count))

    def seconds_of(self, source_frame: int) -> float:
        """When a frame of the source begins; that of the frame after the last one is the duration."""
        return self.seconds if source_frame >= len(self._times) else float(self._times[source_frame])

    @property
    def source_frames(self) -> int:
        return len(self._times)

    def _shape(self) -> tuple[int, int, int]:
        height, width, channels = self.source_shape
        if self._conversion.crop is not None:
            top, left, high, wide = self._conversion.crop
            if top + high > height or left + wide > width:
                raise BadClip(
                    f"has frames of {height}×{width} pixels; prepare.frames.crop goes to row {top + high}, column "
                    f"{left + wide}."
                )
            height, width = high, wide
        if self._conversion.size is not None:
            height, width = self._conversion.size
        return height, width, {"keep": channels, "grey": 1, "rgb": 3}[self._conversion.channels]

    def _converted(self, pixels: np.ndarray) -> np.ndarray:
        wanted = self._conversion
        if wanted.crop is not None:
            top, left, height, width = wanted.crop
            pixels = pixels[top : top + height, left : left + width]
        channels: Channels = "grey" if self.shape[2] == 1 else "rgb"
        return decode(np.ascontiguousarray(pixels), wanted.size, wanted.resize, channels)


@contextmanager
def open_clip(
    source: Path | bytes,
    conversion: Conversion = Conversion(),
    rate: float | None = None,
    max_pixels: int = MAX_CLIP_PIXELS,
) -> Iterator[Clip]:
    """Opens a clip of any kind without decoding it.

    Args:
        source: a file, its content, or a folder of numbered frames.
        conversion: of its frames.
        rate: frames per second of a source without times; None for `ASSUMED_RATE`.
        max_pixels: frames × height × width, at most.

    Raises:
        BadClip: if it is damaged, no clip, or exceeds a limit.
    """
    opened = _opened(source, rate or ASSUMED_RATE, max_pixels)
    try:
        yield Clip(opened, conversion)
    finally:
        opened.close()


def _opened(source: Path | bytes, rate: float, max_pixels: int) -> Opened:
    if isinstance(source, Path) and source.is_dir():
        return Numbered(source, rate, max_pixels)
    try:
        head = read_start(source)
    except BadImage as bad:
        raise BadClip(str(bad)) from None
    if head.startswith((array.MAGIC, array.ZIP_MAGIC)):
        return Array(source, rate, max_pixels)
    if (container := video.container_of(head)) is not None:
        return Video(source, container, max_pixels)
    try:
        return Animation(source, rate, max_pixels)
    except BadClip:
        raise
    except BadImage:
        raise BadClip("is neither a video nor an animation that can be decoded.") from None


def _regular(opened: Opened) -> tuple[np.ndarray, float]:
    """Times, evenly spaced where the source's nearly are, and frames per second."""
    times, nominal = opened.times, opened.nominal_rate
    if len(times) == 1 or times[-1] <= 0:
        rate = nominal or ASSUMED_RATE
        return np.arange(len(times)) / rate, rate
    measured = (len(times) - 1) / float(times[-1])
    if np.abs(times - np.arange(len(times)) / measured).max() < 0.5 / measured:
        uncertain = 0.001 + 1.5 * opened.tick / float(times[-1])
        rate = nominal if nominal and abs(measured - nominal) <= uncertain * nominal else _readable(measured)
        return np.arange(len(times)) / rate, rate
    steps = np.diff(times)
    return times, _readable(min(1 / float(np.median(steps[steps > 0])), FASTEST_RATE))


def _readable(rate: float) -> float:
    """Rounded to six digits, more than times have."""
    return float(f"{rate:.6g}")
