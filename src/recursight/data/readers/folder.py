"""A folder of images: one sub-folder per class, with or without train, validation and test folders above them."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from recursight.data.records import SPLIT_NAMES, SPLITS, Fault, Record, Source, leaves, natural_order
from recursight.errors import InputError

LOOKS_FOR = "an image folder (class folders with images in them, such as cat/1.jpg or train/cat/1.jpg)"
IMAGE_SUFFIXES = (  # a tuple, for str.endswith
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif"),
    *(".bmp", ".tif", ".tiff", ".tga", ".pbm", ".pgm", ".pnm", ".ppm"),
)
_JUNK = frozenset(("Thumbs.db", "desktop.ini", "__MACOSX"))


class ClassFolder(NamedTuple):
    split: str | None
    name: str
    path: Path


def detect(folder: Path) -> bool:
    return any(_is_image(file.name) for top in _folders(folder) for file in _files_below(top))


def read(folder: Path) -> Source:
    """Lists the folder; the files of a class are listed again when they are read, to keep memory constant.

    Raises:
        InputError: if split folders and class folders are mixed up.
    """
    class_folders = _class_folders(folder)
    names = tuple(sorted({each.name for each in class_folders}, key=natural_order))
    above = sorted({each.path.parent for each in class_folders} | {folder})
    loose = [file for path in above for file in _entries(path) if file.is_file() and _is_image(file.name)]

    count, ignored = len(loose), []
    for file in chain.from_iterable(_files_below(each.path) for each in class_folders):
        if _is_image(file.name):
            count += 1
        else:
            ignored.append(os.path.relpath(file.path, folder))

    def records() -> Iterator[Record | Fault]:
        for file in loose:
            yield Fault(os.path.relpath(file.path, folder), "is not in a class folder.")
        yield from chain.from_iterable(_records(folder, each) for each in class_folders)

    return Source("folder", names, count, records, tuple(sorted(ignored)))


def _class_folders(folder: Path) -> list[ClassFolder]:
    tops = _folders(folder)
    splits = {top: SPLIT_NAMES[top.name.lower()] for top in tops if top.name.lower() in SPLIT_NAMES}
    above_classes = [top for top in splits if _folders(top)]
    if not above_classes and len(splits) < len(tops):
        return [ClassFolder(None, top.name, top) for top in tops]  # a class may be called "test"
    for top in tops:
        if top not in splits:
            raise InputError(f"{folder}: {top.name}/ is next to {above_classes[0].name}/; is it a class or a split?")
        if top not in above_classes:
            raise InputError(f"{folder}: {top.name}/ contains no class folders.")
    order = sorted(splits, key=lambda top: (SPLITS.index(splits[top]), top.name))
    return [ClassFolder(splits[top], path.name, path) for top in order for path in _folders(top)]


def _records(folder: Path, class_folder: ClassFolder) -> Iterator[Record | Fault]:
    root, prefix = folder.resolve(), f"{folder}{os.sep}"
    for file in _files_below(class_folder.path):
        name = file.path[len(prefix) :].replace(os.sep, "/")
        if file.is_symlink() and leaves(Path(file.path), root):
            yield Fault(name, "is a link that points outside the folder.")
        elif file.is_dir():
            yield Fault(name, "is a linked folder; links to folders are not followed.")
        elif _is_image(file.name):
            yield Record(name, class_folder.name, class_folder.split, None, Path(file.path))


def _files_below(path: Path | str) -> Iterator[os.DirEntry[str]]:
    """Files and links, folder by folder, in natural order."""
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        else:
            yield entry


def _entries(path: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _JUNK]
    return sorted(visible, key=lambda entry: natural_order(entry.name))


def _folders(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(path) if entry.is_dir()]


def is_class_folder(path: Path) -> bool:
    """Whether it contains images and no folders."""
    return not _folders(path) and any(_is_image(entry.name) for entry in _entries(path))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
