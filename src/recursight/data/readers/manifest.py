"""A folder with manifest.csv, which lists images or clips: columns path and label, optionally split, group and rate.

Paths are relative to the folder. Images of one group (a patient, a scene, a writer) always end up in the same split.
The rate is that of clips without times, in frames per second. A clip may be a folder of numbered frames.
"""

from collections.abc import Iterator
from pathlib import Path

from recursight.data.readers.kind import kind_of
from recursight.data.readers.table import BadRow, path_of, rate_of, rows, split_of
from recursight.data.records import Fault, Record, Source, natural_order

NAME = "manifest.csv"
LOOKS_FOR = "a folder with manifest.csv (columns path, label; optionally split, group, rate)"
COLUMNS = ("path", "label")


def detect(folder: Path) -> bool:
    return (folder / NAME).is_file()


def read(folder: Path) -> Source:
    """Reads the list for the class names, for the kind of the files, and again with the images.

    Raises:
        InputError: if the list is not a CSV file with the required columns, or mixes clips and stills.
    """
    labels: set[str] = set()
    count, with_split = 0, False
    for _, row in rows(folder / NAME, COLUMNS):
        labels.add(row["label"])
        count += 1
        with_split = with_split or bool(row.get("split"))
    root = folder.resolve()
    kind = kind_of(((row["path"], root / row["path"]) for _, row in rows(folder / NAME, COLUMNS)), root)

    def records() -> Iterator[Record | Fault]:
        for number, row in rows(folder / NAME, COLUMNS):
            yield _record(root, number, row, with_split, kind.clips)

    classes = tuple(sorted(labels - {""}, key=natural_order))
    return Source("manifest", classes, count, records, clips=kind.clips, assumption=kind.assumption)


def _record(root: Path, number: int, row: dict[str, str], with_split: bool, clips: bool) -> Record | Fault:
    name = row["path"]
    place = f"{NAME} line {number}"
    if not name:
        return Fault(place, "has no path.")
    if not row["label"]:
        return Fault(name, f"has no label ({place}).")
    try:
        split, path = split_of(row, with_split, place), path_of(name, root, place)
        rate = rate_of(row, place) if clips else None
    except BadRow as bad:
        return Fault(name, str(bad))
    if path.is_dir() and not clips:
        return Fault(name, f"is a folder ({place}).")
    return Record(name, row["label"], split, row.get("group") or None, path, rate=rate)
