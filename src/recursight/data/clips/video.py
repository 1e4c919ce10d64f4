"""Video files: mp4, mov, avi, mkv and webm, decoded by FFmpeg through PyAV.

Only these containers and common codecs are opened: FFmpeg also knows playlists, which would open other files. One
thread decodes a file, so that several files can be decoded at a time. Rotation that a phone recorded is applied; other
properties of display, such as the shape of pixels, are not.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recursight.data.clips.opened import MAX_CLIP_PIXELS, MAX_FRAMES, BadClip, Opened, require_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "libaom-av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "msmpeg4v3"),
    *(
        "mpeg1video",
        "mpeg2video",
        "h263",
        "theora",
        "mjpeg",
        "prores",
        "dnxhd",
        "ffv1",
        "huffyuv",
        "ffvhuff",
        "utvideo",
    ),
    *("png", "rawvideo", "gif", "qtrle", "msvideo1", "cinepak"),
)
_OPTIONS = {
    "codec_whitelist": ",".join((*CODECS, "aac", "mp3", "opus", "vorbis", "pcm_s16le", "flac", "ac3")),
    "protocol_whitelist": "file",
}
_LOST_FRAMES = 0.02  # share of frames that a decoder may leave out, such as those before the first key frame
_MISSING_SECONDS = 0.06  # at the end of a file that states its duration


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of a container, from the first bytes of a file; None if it is no video file."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


class Video(Opened):
    """A video file; its first video stream.

    Raises:
        BadClip: if it has no video, is damaged or truncated, or exceeds a limit; before anything is decoded but the
            first frame, which has the orientation and the real format of the pixels.
    """

    def __init__(self, source: Path | bytes, container: str, max_pixels: int = MAX_CLIP_PIXELS) -> None:
        self._source, self._format, self._max_pixels = source, container, max_pixels
        with self._opened() as listed:
            stream = listed.streams.video[0]
            self._stamps = self._listed_stamps(listed)
            base = float(stream.time_base or 0)
            rate = stream.average_rate or stream.guessed_rate
        self.tick = base
        self.times = (self._stamps - self._stamps[0]) * base
        self.nominal_rate = float(rate) if rate else None
        self._container = self._opened()
        try:
            self._frames = self._decoded()
            self._first = next(self._frames, None)
            if self._first is None:
                raise BadClip("has no frames that can be decoded.")
        except BaseException:
            self.close()
            raise
        self._turns = round(self._first.rotation / 90) % 4
        self._size = (self._first.height, self._first.width)
        self.height, self.width = self._size[::-1] if self._turns % 2 else self._size
        require_size(self.height, self.width, len(self.times), max_pixels)
        self.channels = 1 if _is_grey(self._first) else 3

    def close(self) -> None:
        self._container.close()

    def frames(self, wanted: np.ndarray, grey: bool) -> Iterator[tuple[int, np.ndarray]]:
        from av.video.reformatter import Interpolation, VideoReformatter

        # The same pixels on every processor, whatever instructions it has.
        exact = (
            Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
        )
        scaler, pixel_format = VideoReformatter(), "gray" if grey or self.channels == 1 else "rgb24"
        found, number = 0, -1
        for frame in self._all_frames():
            found += 1
            number = self._number_of(frame, number)
            if frame.is_corrupt:
                raise BadClip(f"is damaged at frame {number:,} of {len(self.times):,}.")
            if (frame.height, frame.width) != self._size:
                raise BadClip(f"changes its size at frame {number:,} from {_by(self._size)} to {_by(frame)}.")
            if number < len(wanted) and wanted[number]:
                converted = scaler.reformat(
                    frame, format=pixel_format, interpolation=Interpolation.BILINEAR | exact, threads=1
                ).to_ndarray()
                pixels = converted if converted.ndim == 3 else converted[:, :, None]
                yield number, np.rot90(pixels, self._turns) if self._turns else pixels
        if found < (1 - _LOST_FRAMES) * len(self.times) - 2:
            raise BadClip(f"has {len(self.times):,} frames, of which only {found:,} can be decoded.")

    def _opened(self) -> "InputContainer":
        import av

        av.logging.set_level(av.logging.PANIC)  # what is wrong is raised
        file: Any = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        try:
            opened = av.open(file, format=self._format, options=dict(_OPTIONS))
        except UnicodeError:  # a name that is not UTF-8 cannot be passed on
            assert isinstance(self._source, Path)
            opened = av.open(self._source.open("rb"), format=self._format, options=dict(_OPTIONS))
        except Exception as error:  # FFmpeg's errors are OSErrors, ValueErrors, and more
            raise BadClip(f"is not a video that can be opened: {_reason(error)}.") from None
        if not opened.streams.video:
            what = "only sound" if opened.streams.audio else "no video"
            opened.close()
            raise BadClip(f"contains {what}.")
        return cast("InputContainer", opened)

    def _listed_stamps(self, container: "InputContainer") -> np.ndarray:
        """Presentation times of all frames in the stream's unit, sorted, without decoding any.

        A truncated file has fewer frames than its header states, or ends before the stated duration.
        """
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec.name not in CODECS:
            raise BadClip(f"is coded as {codec.name}; convert it, for instance to H.264.")
        require_size(codec.height or 1, codec.width or 1, max(stream.frames, 1), self._max_pixels)
        stamps: list[int] = []
        packets, end, corrupt = 0, 0.0, False
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                stamp = packet.dts if self._format == "avi" or packet.pts is None else packet.pts  # avi has no other
                if stamp is not None and packet.time_base is not None:
                    end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                packets += 1
                corrupt = corrupt or packet.is_corrupt
                if packets > MAX_FRAMES:
                    break
                if not packet.is_discard:  # else it comes before what an edit list shows
                    stamps.append(packets if stamp is None else stamp)
        except Exception as error:
            raise BadClip(f"cannot be read after frame {packets:,}: {_reason(error)}.") from None
        if corrupt or packets < stream.frames:
            raise BadClip(f"is truncated after frame {packets:,}{f' of {stream.frames:,}' if stream.frames else ''}.")
        require_size(codec.height or 1, codec.width or 1, min(packets, len(stamps) or packets), self._max_pixels)
        stated = (container.duration or 0) / 1_000_000
        if self._format == "matroska" and end and stated - end > max(_MISSING_SECONDS, 0.01 * stated):
            raise BadClip(f"is truncated: it ends after {end:.1f} of {stated:.1f} seconds.")
        return np.sort(np.array(stamps, np.float64))

    def _decoded(self) -> Iterator["VideoFrame"]:
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = 1
        found = 0
        try:
            for frame in self._container.decode(stream):
                found += 1
                yield frame
        except Exception as error:
            raise BadClip(f"is damaged after frame {found:,} of {len(self.times):,}: {_reason(error)}.") from None

    def _all_frames(self) -> Iterator["VideoFrame"]:
        assert self._first is not None
        yield self._first
        yield from self._frames

    def _number_of(self, frame: "VideoFrame", before: int) -> int:
        """The place of a decoded frame among all, by its presentation time; where there is none, by order."""
        if frame.pts is None or self._format == "avi":
            return before + 1
        return max(before + 1, int(np.searchsorted(self._stamps, frame.pts)))


def _is_grey(frame: "VideoFrame") -> bool:
    layout = frame.format
    return len(layout.components) == 1 and not layout.has_palette and not layout.is_rgb


def _by(size: Any) -> str:
    height, width = size if isinstance(size, tuple) else (size.height, size.width)
    return f"{height}×{width}"


def _reason(error: Exception) -> str:
    """FFmpeg's own words, without the number of the error and the log."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".").lower()
