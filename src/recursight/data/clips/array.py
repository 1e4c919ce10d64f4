"""Arrays: .npy, or .npz with one array; uint8, T H W or T H W C.

The header is checked before any value is read, and nothing is unpickled. Values are read a frame at a time.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from recursight.data.clips.opened import MAX_CLIP_PIXELS, BadClip, Opened, even_times, require_size

MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"


class Array(Opened):
    """A clip as an array.

    Args:
        source: a file, or its content.
        rate: frames per second.
        max_pixels: frames × height × width, at most.

    Raises:
        BadClip: if it is not such an array, or exceeds a limit.
    """

    def __init__(self, source: Path | bytes, rate: float, max_pixels: int = MAX_CLIP_PIXELS) -> None:
        self._stack = ExitStack()
        try:
            self._stream, size = self._values(source)
            shape = _shape(self._stream)
            count, self.height, self.width, self.channels = shape
            require_size(self.height, self.width, count, max_pixels)
            expected = int(np.prod(shape)) + self._stream.tell()
            if size != expected:
                what = "truncated" if size < expected else "too long"
                raise BadClip(f"is {what}: it has {size:,} bytes, but its header declares {expected:,}.")
        except BadClip:
            self.close()
            raise
        except Exception as error:  # NumPy's and zipfile's parsers raise many kinds on malformed bytes
            self.close()
            raise BadClip(f"is not a NumPy array that can be read: {str(error).rstrip('.')}.") from None
        self.times, self.nominal_rate = even_times(count, rate), rate

    def close(self) -> None:
        self._stack.close()

    def frames(self, wanted: np.ndarray, grey: bool) -> Iterator[tuple[int, np.ndarray]]:
        shape = (self.height, self.width, self.channels)
        size = self.height * self.width * self.channels
        for number in range(len(wanted)):
            try:
                content = self._stream.read(size)
            except Exception as error:  # of a compressed member
                raise BadClip(f"is damaged at frame {number}: {str(error).rstrip('.')}.") from None
            if len(content) < size:
                raise BadClip(f"is truncated at frame {number} of {len(wanted)}.")
            if wanted[number]:
                yield number, np.frombuffer(content, np.uint8).reshape(shape)

    def _values(self, source: Path | bytes) -> tuple[IO[bytes], int]:
        """The .npy file, or the only array of an .npz file, and its size."""
        enter = self._stack.enter_context
        file: IO[bytes] = enter(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb"))
        if file.read(4) != ZIP_MAGIC:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            return file, size
        archive = enter(zipfile.ZipFile(file))
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if len(members) != 1:
            names = ", ".join(repr(member.filename) for member in members[:5]) or "none"
            raise BadClip(f"must contain one array, not {len(members)} ({names}).")
        return enter(archive.open(members[0])), members[0].file_size


def _shape(stream: IO[bytes]) -> tuple[int, int, int, int]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise BadClip(f"has the unknown format version {version[0]}.{version[1]}.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    if dtype != np.uint8:
        raise BadClip(f"contains {dtype}; clips are uint8.")
    if by_columns:
        raise BadClip("is in Fortran's order; save it with numpy.ascontiguousarray.")
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise BadClip(f"has the shape {'×'.join(map(str, shape))}; clips are T×H×W, or T×H×W×C with C of 1 or 3.")
    return shape
