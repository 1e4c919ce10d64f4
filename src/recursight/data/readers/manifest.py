"""A folder with manifest.csv, which lists its images: columns path and label, optionally split and group.

Paths are relative to the folder. Images of one group (a patient, a scene, a writer) always end up in the same split.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from recursight.data.records import SPLIT_NAMES, Fault, Record, Source, leaves, natural_order
from recursight.errors import InputError, nearest

NAME = "manifest.csv"
LOOKS_FOR = "a folder with manifest.csv (columns path, label; optionally split, group)"


def detect(folder: Path) -> bool:
    return (folder / NAME).is_file()


def read(folder: Path) -> Source:
    """Reads the list once for the class names, and a second time with the images.

    Raises:
        InputError: if the list is not a CSV file with the required columns.
    """
    labels: set[str] = set()
    count, with_split = 0, False
    for row in _rows(folder / NAME):
        labels.add(row["label"])
        count += 1
        with_split = with_split or bool(row["split"])

    def records() -> Iterator[Record | Fault]:
        root = folder.resolve()
        for number, row in enumerate(_rows(folder / NAME), start=2):  # the header is line 1
            yield _record(root, number, row, with_split)

    return Source("manifest", tuple(sorted(labels - {""}, key=natural_order)), count, records)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Path, label, split and group of each row; empty if missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            for column in ("path", "label"):
                if column not in columns:
                    close = nearest(column, columns) if columns else "it is empty."
                    raise InputError(f"{path.name} has no column {column!r}; {close}")
            for row in reader:
                yield {column: (row.get(column) or "").strip() for column in ("path", "label", "split", "group")}
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8; save it as UTF-8.") from None
    except csv.Error as error:
        raise InputError(f"{path.name} is not valid CSV: {error}.") from None


def _record(root: Path, number: int, row: dict[str, str], with_split: bool) -> Record | Fault:
    name = row["path"]
    place = f"{NAME} line {number}"
    if not name:
        return Fault(place, "has no path.")
    if not row["label"]:
        return Fault(name, f"has no label ({place}).")
    split = SPLIT_NAMES.get(row["split"].lower()) if row["split"] else None
    if with_split and split is None:
        what = f"has split {row['split']!r}" if row["split"] else "has no split, although others have one"
        return Fault(name, f"{what} ({place}); known: {', '.join(SPLIT_NAMES)}.")
    try:
        path = root / name
        outside = Path(name).is_absolute() or ".." in Path(name).parts or leaves(path, root)
    except (OSError, ValueError, RuntimeError):  # a null character, or a loop of links
        return Fault(name, f"is not a valid path ({place}).")
    if outside:
        return Fault(name, f"is outside the folder ({place}).")
    if not path.is_file():
        return Fault(name, f"is listed but missing ({place}).")
    return Record(name, row["label"], split, row["group"] or None, path)
