"""Parquet as on Hugging Face: a column of encoded images and a column of labels.

`image` (or `img`) contains structs of `bytes` and `path`, or bytes. `label` (or `labels`) contains strings, or integers
that the schema's `huggingface` metadata names as a ClassLabel. The split is in a column `split`, else in the name of a
file (train-00000-of-00002.parquet) or of its folder. Optional columns: `group`, and `id`, which is unique.

A page of a file is read as a whole and can be as large as its row group. Memory stays small for files with small row
groups, which Hugging Face's library writes; the import rewrites other files.

Source: https://huggingface.co/docs/datasets/image_dataset and /docs/datasets/about_dataset_features
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recursight.data.records import SPLIT_NAMES, SPLITS, Fault, Record, Source, leaves, natural_order
from recursight.errors import InputError

LOOKS_FOR = "parquet files (columns image and label, as on Hugging Face; such as train-00000-of-00001.parquet)"
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels")

LARGE_GROUP_BYTES = 64_000_000

_BATCH_BYTES = 8_000_000
_MAX_BATCH_ROWS = 512
_READ_AHEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class Shard:
    """One file and the contents of its schema.

    Attributes:
        name: path relative to the folder.
        split: from its name; None if a column contains it, or if there is none.
        image: name of the image column.
        label: name of the label column.
        others: those of the columns id, split and group that exist.
        names: class names, if the schema contains them.
        rows: number of rows.
        batch_rows: rows read at a time, to limit memory.
    """

    path: Path
    name: str
    split: str | None
    image: str
    label: str
    others: tuple[str, ...]
    names: tuple[str, ...] | None
    rows: int
    batch_rows: int


def detect(folder: Path) -> bool:
    return bool(files(folder))


def files(folder: Path) -> list[Path]:
    """All parquet files in the folder and its subfolders."""
    found = (path for path in folder.rglob("*.parquet") if not path.name.startswith(".") and path.is_file())
    return sorted(found, key=lambda path: natural_order(path.relative_to(folder).as_posix()))


def has_large_groups(folder: Path) -> bool:
    """Whether a file has row groups that take much memory to read."""
    for path in files(folder):
        metadata = _open(path, path.name).metadata
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        if any(group.total_byte_size > LARGE_GROUP_BYTES for group in groups):
            return True
    return False


def read(folder: Path) -> Source:
    """Reads the schemas, and the labels if no schema names the classes.

    Raises:
        InputError: listing every file that is damaged or lacks a column.
    """
    shards, faults = [], []
    for path in files(folder):
        try:
            shards.append(_shard(path, folder))
        except InputError as error:
            faults.append(str(error))
    if not faults:
        faults = _disagreements(shards)
    if faults:
        raise InputError("\n".join(faults))
    shards.sort(key=lambda shard: SPLITS.index(shard.split) if shard.split else 0)
    classes = shards[0].names or _label_names(shards)

    def records() -> Iterator[Record | Fault]:
        for shard in shards:
            yield from _records(shard, classes)

    return Source("parquet", classes, sum(shard.rows for shard in shards), records)


def _shard(path: Path, folder: Path) -> Shard:
    name = path.relative_to(folder).as_posix()
    if leaves(path, folder.resolve()):
        raise InputError(f"{name} is a link that points outside the folder.")
    opened = _open(path, name)
    schema, metadata = opened.schema_arrow, opened.metadata
    image = _column(schema, IMAGE_NAMES, name)
    label = _column(schema, LABEL_NAMES, name)
    _check_types(schema, image, label, name)
    others = tuple(column for column in ("id", "split", "group") if column in schema.names)
    bytes_of_all = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return Shard(
        path=path,
        name=name,
        split=None if "split" in others else _split_of(name),
        image=image,
        label=label,
        others=others,
        names=_class_label(schema, label),
        rows=metadata.num_rows,
        batch_rows=max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(bytes_of_all, 1))),
    )


def _open(path: Path, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:  # no read-ahead: it would load a whole row group into memory
        return pq.ParquetFile(path, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False)
    except UnicodeEncodeError:
        raise InputError(f"{name}: the file name is not UTF-8, and parquet files need that; rename it.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not a parquet file, or is damaged: {_first_sentence(error)}.") from None


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")


def _column(schema: Any, choices: tuple[str, ...], name: str) -> str:
    for choice in choices:
        if choice in schema.names:
            return choice
    raise InputError(f"{name} has no column {' or '.join(map(repr, choices))}; it has {', '.join(schema.names)}.")


def _check_types(schema: Any, image: str, label: str, name: str) -> None:
    import pyarrow.types as is_type

    kind = schema.field(image).type
    if is_type.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (is_type.is_binary(kind) or is_type.is_large_binary(kind)):
        raise InputError(
            f"{name}: column {image!r} is {kind}; it must contain encoded images (struct of bytes, or bytes)."
        )
    kind = schema.field(label).type
    if is_type.is_dictionary(kind):
        kind = kind.value_type
    if not (is_type.is_integer(kind) or is_type.is_string(kind) or is_type.is_large_string(kind)):
        raise InputError(f"{name}: column {label!r} is {kind}; it must contain integers or strings.")


def _split_of(name: str) -> str | None:
    parts = name.lower().split("/")
    for candidate in [re.split(r"[-_.]", parts[-1])[0], *reversed(parts[:-1])]:
        if candidate in SPLIT_NAMES:
            return SPLIT_NAMES[candidate]
    return None


def _class_label(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel in the metadata that Hugging Face's library writes."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = feature["names"]
    except (KeyError, TypeError, ValueError):
        return None
    valid = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if valid and len(set(names)) == len(names) else None


def _disagreements(shards: list[Shard]) -> list[str]:
    faults = []
    first = shards[0]
    unsaid = [shard.name for shard in shards if shard.split is None and "split" not in shard.others]
    if unsaid and len(unsaid) < len(shards):
        faults.append(f"{', '.join(unsaid)}: the name contains no split, although those of other files do.")
    for shard in shards[1:]:
        if shard.names != first.names:
            faults.append(f"{shard.name} has other class names than {first.name}.")
    return faults


def _label_names(shards: list[Shard]) -> tuple[str, ...]:
    labels: set[str] = set()
    for shard in shards:
        for batch in _batches(shard, [shard.label], 65_536):
            labels |= {str(value) for value in batch.column(0).unique().to_pylist() if value is not None}
    return tuple(sorted(labels, key=natural_order))


def _batches(shard: Shard, columns: list[str], rows: int) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with _open(shard.path, shard.name) as opened:
            yield from opened.iter_batches(batch_size=rows, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.name} is damaged: {_first_sentence(error)}.") from None


def _records(shard: Shard, classes: tuple[str, ...]) -> Iterator[Record | Fault]:
    columns = [shard.image, shard.label, *shard.others]
    start = 0
    try:
        for batch in _batches(shard, columns, shard.batch_rows):
            labels = batch.column(shard.label).to_pylist()
            others = {name: batch.column(name).to_pylist() for name in shard.others}
            for row, encoded in enumerate(_encoded(batch.column(shard.image))):
                extra = {name: values[row] for name, values in others.items()}
                yield _record(shard, classes, f"{shard.name}:{start + row}", encoded, labels[row], extra)
            start += batch.num_rows
    except (InputError, UnicodeDecodeError) as error:
        yield Fault(shard.name, str(error).removeprefix(f"{shard.name} "), fatal=True)


def _encoded(column: Any) -> list[bytes | None]:
    if hasattr(column, "flatten") and column.type.num_fields:
        column = column.flatten()[column.type.get_field_index("bytes")]
    values: list[bytes | None] = column.to_pylist()
    return values


def _record(
    shard: Shard, classes: tuple[str, ...], place: str, encoded: bytes | None, label: Any, extra: dict[str, Any]
) -> Record | Fault:
    name = str(extra["id"]) if extra.get("id") not in (None, "") else place
    if label is None or label == "":
        return Fault(name, "has no label.")
    if encoded is None:
        return Fault(name, "has no image bytes.")
    if isinstance(label, int) and shard.names is not None:
        if not 0 <= label < len(classes):
            return Fault(name, f"has label {label}, but the schema names classes 0 to {len(classes) - 1}.")
        label = classes[label]
    split = shard.split
    if "split" in extra:
        split = SPLIT_NAMES.get(str(extra["split"]).lower())
        if split is None:
            return Fault(name, f"has split {extra['split']!r}; known: {', '.join(SPLIT_NAMES)}.")
    group = extra.get("group")
    return Record(name, str(label), split, None if group in (None, "") else str(group), encoded)
