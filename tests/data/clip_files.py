"""Real clips in every kind of file: a bar that moves across frames, one grey level a frame."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 32, 48


def bar(frames: int = 12, phase: int = 0) -> np.ndarray:
    """uint8, T H W 3: dark grey, and a bright bar whose left edge is at 3 pixels times the number of the frame."""
    clip = np.full((frames, HEIGHT, WIDTH, 3), 20, np.uint8)
    for number, frame in enumerate(clip):
        frame[:, (3 * number + phase) % (WIDTH - 8) :][:, :8] = 220
    return clip


def left_edges(frames: np.ndarray) -> list[int]:
    """Where the bar begins in each frame."""
    return [int(np.argmax(frame[HEIGHT // 2, :, 0] > 120)) for frame in frames]


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    rate: Fraction | int = 30,
    times: Sequence[float] | None = None,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    **options: str,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    """A file without a picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_animation(path: Path, frames: np.ndarray, milliseconds: int = 40, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(frame) for frame in frames)
    durations = {} if path.suffix == ".tiff" else {"duration": milliseconds}
    first.save(path, save_all=True, append_images=rest, **durations, **options)


def write_numbered(path: Path, frames: np.ndarray) -> None:
    path.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / f"frame{number:04}.png")


def write_npy(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, frames)


def write_npz(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, frames)


KINDS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "clip.mp4": write_video,
    "clip.mov": lambda path, frames: write_video(path, frames, "mpeg4"),
    "clip.avi": lambda path, frames: write_video(path, frames, "mpeg4"),
    "reordered.avi": write_video,  # H.264 with B-frames, of which AVI states no presentation times
    "clip.mkv": write_video,
    "clip.webm": lambda path, frames: write_video(path, frames, "libvpx-vp9"),
    "clip.gif": write_animation,
    "clip.webp": lambda path, frames: write_animation(path, frames, lossless=True),
    "clip.png": write_animation,
    "clip.tiff": write_animation,
    "clip": write_numbered,
    "clip.npy": write_npy,
    "clip.npz": write_npz,
}
LOSSLESS = {"clip.webp", "clip.png", "clip.tiff", "clip", "clip.npy", "clip.npz"}
