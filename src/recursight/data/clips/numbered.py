"""A folder of frames whose names end in consecutive numbers, such as 0001.png, 0002.png."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from recursight.data import images
from recursight.data.clips.opened import MAX_CLIP_PIXELS, BadClip, Opened, even_times, require_size
from recursight.data.records import leaves, natural_order

_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)(?P<after>\.[A-Za-z0-9]+)")


class Numbered(Opened):
    """A folder of frames.

    Args:
        folder: with images, and nothing else that matters.
        rate: frames per second.
        max_pixels: frames × height × width, at most.

    Raises:
        BadClip: if frames are missing, or the first cannot be decoded.
    """

    def __init__(self, folder: Path, rate: float, max_pixels: int = MAX_CLIP_PIXELS) -> None:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _NUMBERED.fullmatch(entry.name) and entry.is_file()]
        if not names:
            raise BadClip("has no frames.")
        self._paths = [folder / name for name in sorted(names, key=natural_order)]
        root = folder.resolve()
        if outside := next((path for path in self._paths if path.is_symlink() and leaves(path, root)), None):
            raise BadClip(f"contains {outside.name}, a link that points outside the folder.")
        if (gap := _gap(names)) is not None:
            raise BadClip(f"has no frame {gap}; its frames must be numbered consecutively and named alike.")
        self.height, self.width, self.channels = self._pixels(0).shape
        require_size(self.height, self.width, len(names), max_pixels)
        self.times, self.nominal_rate = even_times(len(names), rate), rate

    def frames(self, wanted: np.ndarray, grey: bool) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(len(wanted)):
            if wanted[number]:
                pixels = self._pixels(number)
                if pixels.shape[:2] != (self.height, self.width):
                    raise BadClip(f"changes its size at {self._paths[number].name}.")
                yield number, pixels

    def _pixels(self, number: int) -> np.ndarray:
        try:
            return images.decode(self._paths[number])
        except images.BadImage as bad:
            raise BadClip(f"contains {self._paths[number].name}, which {bad}") from None


def are_consecutive(names: Sequence[str]) -> bool:
    """Whether two or more names are alike but for consecutive numbers."""
    return len(names) > 1 and all(map(_NUMBERED.fullmatch, names)) and _gap(names) is None


def _gap(names: Sequence[str]) -> str | None:
    """The first name or number that breaks the row; None if there is none."""
    parts = [match for match in map(_NUMBERED.fullmatch, sorted(names, key=natural_order)) if match]
    first = parts[0]
    for place, part in enumerate(parts):
        number = int(first["number"]) + place
        if (part["before"], part["after"]) != (first["before"], first["after"]) or int(part["number"]) != number:
            return f"{first['before']}{number:0{len(first['number'])}}{first['after']}"
    return None
