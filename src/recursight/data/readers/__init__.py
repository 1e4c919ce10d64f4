"""Which format a folder is in, and the one table of formats.

A reader is a module with three names: `LOOKS_FOR` says what it looks for, `detect(folder)` whether it finds that by
names alone, `read(folder)` opens the source and refuses it with every structural fault that it has. Whether single
images can be decoded is not its business.
"""

from pathlib import Path
from typing import Protocol

from recursight.data.readers import idx
from recursight.data.records import Source
from recursight.errors import InputError


class Reader(Protocol):
    LOOKS_FOR: str

    def detect(self, folder: Path, /) -> bool: ...

    def read(self, folder: Path, /) -> Source: ...


READERS: dict[str, Reader] = {  # the first that detects its format reads it
    "idx": idx,
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
    for reader in READERS.values():
        if reader.detect(folder):
            return reader.read(folder)
    looked_for = "; ".join(reader.LOOKS_FOR for reader in READERS.values())
    raise InputError(f"{folder} is no data set that can be read. Looked for: {looked_for}.")
