"""The images of a folder and of all below it."""

import os
from collections.abc import Iterator
from pathlib import Path

from recursight.data.readers.folder import IMAGE_SUFFIXES

Listed = tuple[str, int, int]  # path below the folder, size in bytes, time of the last change in ns


def count_images(folder: Path) -> int:
    """How many there are."""
    return sum(1 for _ in list_images(folder))


def list_images(folder: Path) -> Iterator[str]:
    """Paths in the order of their names, folder by folder; the names of one folder are in memory at a time."""
    return _walk(folder, "")


def _walk(folder: Path | str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield prefix + entry.name


def listed(folder: Path, path: str) -> Listed:
    """Identifies the content of a file; zeros if it is missing."""
    try:
        status = (folder / path).stat()
    except OSError:
        return path, 0, 0
    return path, status.st_size, status.st_mtime_ns
