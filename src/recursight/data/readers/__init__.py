"""Which format a folder is in, and the one table of formats.

A reader is a module with three names: `LOOKS_FOR` says what it looks for, `detect(folder)` whether it finds that by
names alone, `read(folder)` opens the source and refuses it with every structural fault that it has. Whether single
images can be decoded is not its business.
"""

from pathlib import Path
from typing import Protocol

from recursight.data.readers import folder as image_folder
from recursight.data.readers import idx, manifest, parquet
from recursight.data.records import SPLIT_NAMES, Source
from recursight.errors import InputError


class Reader(Protocol):
    LOOKS_FOR: str

    def detect(self, folder: Path, /) -> bool: ...

    def read(self, folder: Path, /) -> Source: ...


READERS: dict[str, Reader] = {  # the first that detects its format reads it
    "idx": idx,
    "manifest": manifest,
    "parquet": parquet,
    "folder": image_folder,
}


def open_source(folder: Path) -> Source:
    """Finds out a folder's format and opens it.

    Raises:
        InputError: if it is missing, empty, in no known format, or not as its format wants it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}.")
    if not any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} is empty.")
    folder = unwrapped(folder)
    for reader in READERS.values():
        if reader.detect(folder):
            return reader.read(folder)
    looked_for = "; ".join(reader.LOOKS_FOR for reader in READERS.values())
    raise InputError(f"{folder} is no data set that can be read. Looked for: {looked_for}.")


def unwrapped(folder: Path) -> Path:
    """Goes down while all there is is one folder, as in many archives; split and class folders stay in theirs."""
    while True:
        visible = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(visible) != 1 or not visible[0].is_dir() or visible[0].is_symlink():
            return folder
        inner = visible[0]
        if inner.name.lower() in SPLIT_NAMES or image_folder.is_class_folder(inner):
            return folder
        folder = inner
