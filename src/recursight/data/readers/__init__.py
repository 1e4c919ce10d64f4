"""The table of readers, and the detection of a folder's format.

A reader is a module with three names: `LOOKS_FOR` describes its format, `detect(folder)` recognises it by file names
alone, and `read(folder)` opens the source, or rejects it with a list of all structural errors. It does not check
whether single images can be decoded.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from recursight.data.readers import events, idx, manifest, parquet
from recursight.data.readers import folder as image_folder
from recursight.data.records import SPLIT_NAMES, Fault, Record, Source
from recursight.errors import InputError
from recursight.terminal import printable


class Reader(Protocol):
    LOOKS_FOR: str

    def detect(self, folder: Path, /) -> bool: ...

    def read(self, folder: Path, /) -> Source: ...


READERS: dict[str, Reader] = {  # in this order; the first that detects its format reads it
    "idx": idx,
    "events": events,
    "manifest": manifest,
    "parquet": parquet,
    "folder": image_folder,
}


def open_source(folder: Path) -> Source:
    """Detects the format of a folder and opens it.

    Raises:
        InputError: if it is missing, empty, in no known format, or violates its format.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}.")
    if not any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} is empty.")
    given, folder = folder, unwrapped(folder)
    _require_one_data_set(folder, given)
    for reader in READERS.values():
        if reader.detect(folder):
            return _printable(reader.read(folder))
    looked_for = "; ".join(reader.LOOKS_FOR for reader in READERS.values())
    raise InputError(f"{folder} is in no known data format. Looked for: {looked_for}.")


def _require_one_data_set(folder: Path, given: Path) -> None:
    """Refuses a folder whose sub-folders have lists of their own, which would be read as classes."""
    lists = sorted(path for name in (manifest.NAME, events.NAME) for path in folder.glob(f"*/{name}"))
    if len(lists) > 1 and not (folder / manifest.NAME).exists() and not (folder / events.NAME).exists():
        names = [path.parent.relative_to(given).as_posix() for path in lists[:5]]
        raise InputError(
            f"{folder.name}/ contains {len(lists)} data sets: {', '.join(names)}; import one of them, such as "
            f"`recursight data import SOURCE --folder {names[0]}`."
        )


def _printable(source: Source) -> Source:
    """Escapes the names of images, clips, classes and groups, see `terminal.printable`."""

    def records() -> Iterator[Record | Fault]:
        for item in source.read():
            if isinstance(item, Fault):
                yield Fault(printable(item.id), printable(item.reason), item.fatal)
            else:
                group = item.group and printable(item.group)
                found = item.events
                found = found and tuple(event._replace(label=printable(event.label)) for event in found)
                yield item._replace(id=printable(item.id), label=printable(item.label), group=group, events=found)

    return replace(
        source,
        classes=tuple(dict.fromkeys(map(printable, source.classes))),
        read=records,
        ignored=tuple(map(printable, source.ignored)),
    )


def unwrapped(folder: Path) -> Path:
    """Descends while a folder contains only one folder, as in many archives, except into split and class folders."""
    while True:
        visible = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(visible) != 1 or not visible[0].is_dir() or visible[0].is_symlink():
            return folder
        inner = visible[0]
        if inner.name.lower() in SPLIT_NAMES or image_folder.is_class_folder(inner):
            return folder
        folder = inner
