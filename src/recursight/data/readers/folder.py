"""A folder of images or clips: one sub-folder per class, with or without train, validation and test folders above.

Images in folders below a class are images of the class. Folders of frames are clips if all images of the data set are
in such folders, CLASS/CLIP/0001.png, and the names in each differ only in consecutive numbers. `kind` has the rule for
other clips.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from recursight.data.clips.numbered import are_consecutive
from recursight.data.readers.kind import CLIP_SUFFIXES, Kind, kind_of
from recursight.data.readers.kind import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from recursight.data.records import SPLIT_NAMES, SPLITS, Fault, Record, Source, leaves, natural_order
from recursight.errors import InputError

LOOKS_FOR = "class folders with images or clips in them (such as cat/1.jpg, train/cat/1.jpg or wave/1.mp4)"
_JUNK = frozenset(("Thumbs.db", "desktop.ini", "__MACOSX"))


Entry = os.DirEntry[str]
Below = Callable[[Path], Iterable[Entry]]


class ClassFolder(NamedTuple):
    split: str | None
    name: str
    path: Path


def detect(folder: Path) -> bool:
    suffixes = IMAGE_SUFFIXES + CLIP_SUFFIXES
    return any(_ends(file.name, suffixes) for top in _folders(folder) for file in _files_below(top))


def read(folder: Path) -> Source:
    """Lists the folder; the files of a class are listed again when they are read, to keep memory constant.

    Raises:
        InputError: if split folders and class folders, or clips and stills, are mixed up.
    """
    class_folders = _class_folders(folder)
    names = tuple(sorted({each.name for each in class_folders}, key=natural_order))
    above = sorted({each.path.parent for each in class_folders} | {folder})
    kind, below = _kind(folder, class_folders)
    suffixes = CLIP_SUFFIXES if kind.clips else IMAGE_SUFFIXES
    loose = [file for path in above for file in _entries(path) if file.is_file() and _ends(file.name, suffixes)]

    count, ignored = len(loose), []
    for entry in chain.from_iterable(below(each.path) for each in class_folders):
        if _ends(entry.name, suffixes) or entry.is_dir(follow_symlinks=False):
            count += 1
        else:
            ignored.append(os.path.relpath(entry.path, folder))

    def records() -> Iterator[Record | Fault]:
        for file in loose:
            yield Fault(os.path.relpath(file.path, folder), "is not in a class folder.")
        for each in class_folders:
            yield from _records(folder, each, below(each.path), suffixes)

    return Source("folder", names, count, records, tuple(sorted(ignored)), clips=kind.clips, assumption=kind.assumption)


def _kind(folder: Path, class_folders: list[ClassFolder]) -> tuple[Kind, Below]:
    """Whether the data set consists of clips, and how the examples of a class are listed."""
    root = folder.resolve()
    numbered = all(_holds_numbered(each.path) for each in class_folders)
    below: Below = _entries if numbered else _files_below
    entries = chain.from_iterable(below(each.path) for each in class_folders)
    return kind_of(((os.path.relpath(entry.path, folder), Path(entry.path)) for entry in entries), root), below


def _holds_numbered(path: Path) -> bool:
    """Whether all images of a class are in folders of consecutively numbered frames."""
    entries = _entries(path)
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    if not folders or any(_ends(entry.name, IMAGE_SUFFIXES) for entry in entries if entry.is_file()):
        return False
    frames = ([entry.name for entry in _entries(each.path) if not entry.is_dir()] for each in folders)
    return all(are_consecutive([name for name in names if _ends(name, IMAGE_SUFFIXES)]) for names in frames)


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


def _records(
    folder: Path, class_folder: ClassFolder, entries: Iterable[Entry], suffixes: tuple[str, ...]
) -> Iterator[Record | Fault]:
    root, prefix = folder.resolve(), f"{folder}{os.sep}"
    for file in entries:
        name = file.path[len(prefix) :].replace(os.sep, "/")
        if file.is_symlink() and leaves(Path(file.path), root):
            yield Fault(name, "is a link that points outside the folder.")
        elif file.is_symlink() and file.is_dir():
            yield Fault(name, "is a linked folder; links to folders are not followed.")
        elif _ends(file.name, suffixes) or file.is_dir():
            yield Record(name, class_folder.name, class_folder.split, None, Path(file.path))


def _files_below(path: Path | str) -> Iterator[Entry]:
    """Files and links, folder by folder, in natural order."""
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        else:
            yield entry


def _entries(path: Path | str) -> list[Entry]:
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _JUNK]
    return sorted(visible, key=lambda entry: natural_order(entry.name))


def _folders(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(path) if entry.is_dir()]


def is_class_folder(path: Path) -> bool:
    """Whether it contains images or clips, and no folders."""
    return not _folders(path) and any(_ends(entry.name, IMAGE_SUFFIXES + CLIP_SUFFIXES) for entry in _entries(path))


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)
