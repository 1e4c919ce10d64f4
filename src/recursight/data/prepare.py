"""Makes the store from any source: decodes, resizes, writes and splits in one pass, with a few chunks in memory.

Memory grows by about 400 bytes per image: id, target, group, hash, pixel sums and statistics.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recursight import files
from recursight.data import split as splitting
from recursight.data.examples import Progress, examples
from recursight.data.findings import Findings, Shape, Strata, each_value
from recursight.data.images import Channels, Resize, decode
from recursight.data.readers import open_source
from recursight.data.records import SPLITS
from recursight.data.store import FORMAT, FrameWriter
from recursight.errors import InputError

_ROWS_AT_ONCE = 65_536


def prepare(
    source: Path,
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "pad",
    channels: Channels = "keep",
    validation: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
    strata: Strata = each_value,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reads a source in any known format and writes the store, whole or not at all.

    Args:
        source: the folder with the raw data.
        folder: of the store; an existing one is replaced.
        size: height and width of the stored images; None keeps the original size, which must be the same for all.
        resize: how images of another size are resized, see `images.decode`.
        channels: grey, rgb or keep; with keep, all images must have the same.
        validation: share of the training images for validation, if the source has no validation split.
        test: share of all images for testing, if the source has no test split.
        seed: of the split.
        strata: maps the source's distinct target values to strata; every split gets its share of each stratum.
        skip_bad: skip images that cannot be used, instead of refusing the source.
        progress: called with the number of finished images and their total.

    Returns:
        The content of store.json, and `skipped`: a sentence for each image that was skipped.

    Raises:
        InputError: with all errors of the source. Then no file is changed.
    """
    findings = Findings(open_source(source))

    def keep(shape: Shape) -> bool:  # a second shape is refused below, after the pass has found all errors
        return not findings.shapes or (shape in findings.shapes and len(findings.shapes) == 1)

    def fit(image: bytes | Path | np.ndarray) -> np.ndarray:
        return decode(image, size, resize, channels)

    with files.replacing(folder) as staging:
        staging.mkdir()
        with (staging / "frames.npy").open("wb") as stream:
            writer = FrameWriter(stream)
            for chunk in examples(findings, fit, keep, progress):
                if len(findings.shapes) == 1:
                    writer.append(np.stack([example.pixels for example in chunk if example.pixels is not None]))
            findings.refuse(skip_bad)
            _require_one_shape(findings)
            writer.finish()
        splits = findings.splits(validation, test, seed, strata)
        _write_examples(staging / "examples.parquet", findings, splits, writer.lengths)
        _write_targets(staging / "targets.parquet", findings, writer.lengths)
        pq.write_table(pa.table(writer.statistics()), staging / "statistics.parquet", compression="zstd")
        summary = _summary(findings, splits, writer)
        files.write_json(staging / "store.json", summary)
    return summary | {"skipped": [str(fault) for fault in findings.faults]}


def _write_examples(path: Path, findings: Findings, splits: np.ndarray, lengths: np.ndarray) -> None:
    names = pa.array(findings.group_names, pa.string())
    first = np.cumsum(lengths) - lengths
    columns = [
        ("id", pa.string()),
        ("first_frame", pa.int64()),
        ("frames", pa.int64()),
        ("rate", pa.float32()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("sha256", pa.string()),
    ]
    ids, groups, sha256 = findings.ids, findings.groups % len(names), findings.sha256
    with pq.ParquetWriter(path, pa.schema(columns), compression="zstd") as writer:
        for start in range(0, len(lengths), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            table = {
                "id": ids.slice(start, _ROWS_AT_ONCE).combine_chunks(),
                "first_frame": first[rows],
                "frames": lengths[rows],
                "rate": np.zeros(len(lengths[rows]), np.float32),
                "split": pa.array(splitting.NAMES).take(pa.array(splits[rows])),
                "group": names.take(pa.array(groups[rows])),
                "sha256": pa.array([row.tobytes().hex() for row in sha256[rows]], pa.string()),
            }
            writer.write_table(pa.table(table))


def _write_targets(path: Path, findings: Findings, lengths: np.ndarray) -> None:
    """One target per example, which covers all its frames."""
    values = pa.DictionaryArray.from_arrays(pa.array(findings.labels, pa.int32()), pa.array(findings.source.classes))
    count = len(lengths)
    table = pa.table(
        {"example": np.arange(count), "start_frame": np.zeros(count, np.int64), "end_frame": lengths, "value": values}
    )
    pq.write_table(table, path, compression="zstd")


def _summary(findings: Findings, splits: np.ndarray, writer: FrameWriter) -> dict[str, Any]:
    mean, deviation = writer.moments(splits == splitting.TRAIN)
    conflicts, conflict_count = findings.conflicts()
    return {
        "format": FORMAT,
        "shape": list(writer.shape),
        "count": len(splits),
        "frames": writer.count,
        "values": len(findings.source.classes),
        "splits": {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)},
        "left_out": int((splits == splitting.OUT).sum()),
        "mean": mean,
        "std": deviation,
        "digest": _digest(findings, splits, writer),
        "source": {"format": findings.source.format},
        "conflicts": conflicts,
        "conflict_count": conflict_count,
    }


def _digest(findings: Findings, splits: np.ndarray, writer: FrameWriter) -> str:
    """SHA-256 of all that a training depends on: the shape, and the id, length, target, split and hash of examples."""
    values = findings.source.classes
    digest = hashlib.sha256(files.digest({"shape": writer.shape, "values": values}).encode())
    start = 0
    labels, sha256, lengths = findings.labels, findings.sha256, writer.lengths
    for ids in findings.ids.chunks:
        rows = range(start, start + len(ids))
        lines = (
            f"{id}\0{lengths[row]}\0{labels[row]}\0{splitting.NAMES[splits[row]]}\0{sha256[row].tobytes().hex()}\n"
            for row, id in zip(rows, ids.to_pylist(), strict=True)
        )
        digest.update("".join(lines).encode())
        start += len(ids)
    return digest.hexdigest()


def _require_one_shape(findings: Findings) -> None:
    sizes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], str] = {}
    for (height, width, channels), count in findings.shapes.items():
        sizes[height, width] += count
        first.setdefault((height, width), findings.first_of_shape[height, width, channels])
    if len(sizes) > 1:
        common = sizes.most_common(5)
        listed = ", ".join(f"{h}×{w} ({count:,}, such as {first[h, w]})" for (h, w), count in common)
        raise InputError(
            f"the images have {len(sizes):,} sizes: {listed}{', ...' if len(sizes) > 5 else ''}; "
            f"set prepare.size in params.yaml, such as size: {list(common[0][0])}."
        )
    if len(findings.shapes) > 1:
        listed = " and ".join(
            f"{count:,} {'grey' if shape[2] == 1 else 'RGB'} images (such as {findings.first_of_shape[shape]})"
            for shape, count in findings.shapes.most_common()
        )
        raise InputError(f"the data mixes {listed}; set prepare.channels in params.yaml to grey or rgb.")
