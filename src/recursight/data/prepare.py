"""Makes the store from any source: decodes, resizes, writes and splits in one pass, with a few chunks in memory.

Memory grows by about 400 bytes per image or clip: id, target, group, hash, pixel sums and statistics.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recursight import files
from recursight.data import clip_examples
from recursight.data import split as splitting
from recursight.data.clip_examples import Planned
from recursight.data.clips import Conversion
from recursight.data.examples import Progress, examples
from recursight.data.findings import Findings, Shape, Strata, each_value
from recursight.data.images import Channels, Resize, decode
from recursight.data.readers import open_source
from recursight.data.records import SPLITS
from recursight.data.store import FORMAT, FrameWriter, Measured, as_one, measure
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
    rate: float | None = None,
    crop: tuple[int, int, int, int] | None = None,
    window: float = 0.0,
    overlap: float = 0.5,
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
        rate: frames per second that clips are resampled at; None keeps each clip's own.
        crop: top, left, height and width in pixels that are cut out of the frames of clips before resizing.
        window: seconds; a training cuts longer clips into such parts. 0 cuts nothing.
        overlap: share of a window that the next one repeats.
        strata: maps the source's distinct target values to strata; every split gets its share of each stratum.
        skip_bad: skip images or clips that cannot be used, instead of refusing the source.
        progress: called with the number of finished images, or frames of clips, and their total.

    Returns:
        The content of store.json, and `skipped`: a sentence for each image that was skipped.

    Raises:
        InputError: with all errors of the source. Then no file is changed.
    """
    findings = Findings(open_source(source))
    conversion = Conversion(rate, crop, size, resize, channels)
    if not findings.source.clips and (rate or crop or window):
        raise InputError("prepare.frames in params.yaml is for clips, but data/ has stills; remove its keys.")
    with files.replacing(folder) as staging:
        staging.mkdir()
        with (staging / "frames.npy").open("w+b") as stream:
            writer = FrameWriter(stream)
            if findings.source.clips:
                _write_clips(findings, writer, conversion, skip_bad, progress)
            else:
                _write_stills(findings, writer, conversion, skip_bad, progress)
            writer.finish()
        splits = findings.splits(validation, test, seed, strata)
        _write_examples(staging / "examples.parquet", findings, splits)
        _write_targets(staging / "targets.parquet", findings)
        pq.write_table(pa.table(writer.statistics()), staging / "statistics.parquet", compression="zstd")
        summary = _summary(findings, splits, writer, _window(findings, window, overlap))
        files.write_json(staging / "store.json", summary)
    return summary | {"skipped": [str(fault) for fault in findings.faults], "too_short": findings.too_short}


def _write_stills(
    findings: Findings, writer: FrameWriter, conversion: Conversion, skip_bad: bool, progress: Progress | None
) -> None:
    def keep(shape: Shape) -> bool:  # a second shape is refused below, after the pass has found all errors
        return not findings.shapes or (shape in findings.shapes and len(findings.shapes) == 1)

    def fit(image: bytes | Path | np.ndarray) -> np.ndarray:
        return decode(image, conversion.size, conversion.resize, conversion.channels)

    for chunk in examples(findings, fit, keep, progress):
        if len(findings.shapes) == 1:
            writer.append(np.stack([example.pixels for example in chunk if example.pixels is not None]))
    findings.refuse(skip_bad)
    _require_one_shape(findings.shapes, findings.first_of_shape, "image")


def _write_clips(
    findings: Findings, writer: FrameWriter, conversion: Conversion, skip_bad: bool, progress: Progress | None
) -> None:
    """Each clip's frames are written to their place, which headers tell, as soon as they are decoded."""
    planned = clip_examples.plan(findings, conversion)
    good = [each for each in planned if isinstance(each, Planned)]
    shapes = Counter(each.shape for each in good)
    _require_one_shape(shapes, {each.shape: each.record.id for each in reversed(good)}, "clip")
    if good:
        writer.begin(good[0].shape)
    ends = np.cumsum([each.frames for each in good])
    first = {id(each.record): int(end) - each.frames for each, end in zip(good, ends, strict=True)}
    measured: dict[int, list[Measured]] = {key: [] for key in first}

    def take(clip: Planned, before: int, frames: np.ndarray) -> None:
        writer.place(first[id(clip.record)] + before, frames)
        measured[id(clip.record)].append(measure(frames, np.array([len(frames)])))

    for example in clip_examples.decode(findings, planned, conversion, take, progress):
        key = id(example.record)
        if first[key] > writer.count:  # a clip before it was bad
            writer.move(first[key], writer.count, example.frames)
        writer.add(as_one(measured.pop(key)))
    findings.refuse(skip_bad)


def _window(findings: Findings, seconds: float, overlap: float) -> dict[str, int] | None:
    """The parts that training cuts long clips into, in frames."""
    if not seconds:
        return None
    rates = np.unique(findings.rates)
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in rates[:5])
        raise InputError(
            f"the clips have {len(rates)} rates ({listed} frames per second), and prepare.frames.window needs one; set "
            "prepare.frames.rate in params.yaml."
        )
    frames = max(1, round(seconds * float(rates[0])))
    return {"frames": frames, "overlap": min(frames - 1, round(frames * overlap))}


def _write_examples(path: Path, findings: Findings, splits: np.ndarray) -> None:
    names = pa.array(findings.group_names, pa.string())
    lengths, rates = findings.lengths, findings.rates
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
                "rate": rates[rows],
                "split": pa.array(splitting.NAMES).take(pa.array(splits[rows])),
                "group": names.take(pa.array(groups[rows])),
                "sha256": pa.array([row.tobytes().hex() for row in sha256[rows]], pa.string()),
            }
            writer.write_table(pa.table(table))


def _write_targets(path: Path, findings: Findings) -> None:
    example, start, end, label = findings.targets.T
    values = pa.DictionaryArray.from_arrays(pa.array(label, pa.int32()), pa.array(findings.source.classes))
    table = pa.table({"example": example, "start_frame": start, "end_frame": end, "value": values})
    pq.write_table(table, path, compression="zstd")


def _summary(
    findings: Findings, splits: np.ndarray, writer: FrameWriter, window: dict[str, int] | None
) -> dict[str, Any]:
    mean, deviation = writer.moments(splits == splitting.TRAIN)
    conflicts, conflict_count = findings.conflicts()
    return {
        "format": FORMAT,
        "kind": "clips" if findings.source.clips else "stills",
        "shape": list(writer.shape),
        "count": len(splits),
        "frames": writer.count,
        "values": len(findings.source.classes),
        "splits": {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)},
        "left_out": int((splits == splitting.OUT).sum()),
        "mean": mean,
        "std": deviation,
        "window": window,
        "digest": _digest(findings, splits, writer, window),
        "source": {"format": findings.source.format},
        "conflicts": conflicts,
        "conflict_count": conflict_count,
    }


def _digest(findings: Findings, splits: np.ndarray, writer: FrameWriter, window: dict[str, int] | None) -> str:
    """SHA-256 of all that a training depends on: the shape, and the id, length, target, split and hash of examples; of
    clips also rates, events and windows."""
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
    if findings.source.clips:
        digest.update(files.digest({"window": window, "rates": findings.rates.tolist()}).encode())
        digest.update(np.ascontiguousarray(findings.targets).astype("<i8").tobytes())
    return digest.hexdigest()


def _require_one_shape(shapes: Counter[Shape], first_of_shape: dict[Shape, str], noun: str) -> None:
    sizes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], str] = {}
    for (height, width, channels), count in shapes.items():
        sizes[height, width] += count
        first.setdefault((height, width), first_of_shape[height, width, channels])
    if len(sizes) > 1:
        common = sizes.most_common(5)
        listed = ", ".join(f"{h}×{w} ({count:,}, such as {first[h, w]})" for (h, w), count in common)
        raise InputError(
            f"the {noun}s have {len(sizes):,} sizes: {listed}{', ...' if len(sizes) > 5 else ''}; "
            f"set prepare.size in params.yaml, such as size: {list(common[0][0])}."
        )
    if len(shapes) > 1:
        listed = " and ".join(
            f"{count:,} {'grey' if shape[2] == 1 else 'RGB'} {noun}s (such as {first_of_shape[shape]})"
            for shape, count in shapes.most_common()
        )
        raise InputError(f"the data mixes {listed}; set prepare.channels in params.yaml to grey or rgb.")
