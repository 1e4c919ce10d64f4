"""From any source to the one store: decode, fit, write, split. One pass, and never more in memory than a few chunks.

What grows with the number of images is about 400 bytes for each: id, label, group, hash, pixel sums and statistics.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recursight import files
from recursight.data import split as splitting
from recursight.data.examples import Progress, examples
from recursight.data.findings import Findings, Shape
from recursight.data.images import Channels, Resize, decode
from recursight.data.readers import open_source
from recursight.data.records import SPLITS
from recursight.data.statistics import image_statistics
from recursight.errors import InputError

FORMAT = 1
_MANIFEST_ROWS = 65_536


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
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reads a source in any known format and writes the store, whole or not at all.

    Args:
        source: the folder with the raw data.
        folder: where the store goes; one that stands there is replaced.
        size: height and width of the stored images; None keeps their own, which must then be one for all.
        resize: how an image of another size or aspect is fitted, see `images.decode`.
        channels: grey, rgb or keep; to keep them, they must be the same for all.
        validation: share of the training images that validates, where the source has no validation split.
        test: share of all images that tests, where the source has no test split.
        seed: of the split.
        skip_bad: leaves out images that cannot be used, instead of refusing the source.
        progress: told how many images are done, and of how many.

    Returns:
        The content of store.json, and under `skipped` what was left out because it is bad, a sentence each.

    Raises:
        InputError: with everything that is wrong with the source. No file is changed then.
    """
    findings = Findings(open_source(source))

    def keep(shape: Shape) -> bool:  # images of a second shape are refused below; the pass goes on to tell all faults
        return not findings.shapes or (shape in findings.shapes and len(findings.shapes) == 1)

    def fit(image: bytes | Path | np.ndarray) -> np.ndarray:
        return decode(image, size, resize, channels)

    with files.replacing(folder) as staging:
        staging.mkdir()
        with (staging / "images.npy").open("wb") as stream:
            writer = ImageWriter(stream)
            for chunk in examples(findings, fit, keep, progress):
                if len(findings.shapes) == 1:
                    writer.append(np.stack([example.pixels for example in chunk if example.pixels is not None]))
            findings.refuse(skip_bad)
            _require_one_shape(findings)
            writer.finish()
        splits = findings.splits(validation, test, seed)
        _write_manifest(staging / "manifest.parquet", findings, splits)
        pq.write_table(pa.table(writer.statistics()), staging / "statistics.parquet", compression="zstd")
        summary = _summary(findings, splits, writer)
        files.write_json(staging / "store.json", summary)
    return summary | {"skipped": [str(fault) for fault in findings.faults]}


class ImageWriter:
    """An .npy file that grows: how many images come is known only at the end.

    NumPy pads the header of such a file so that its first axis can be rewritten in place. Writing through a stream and
    not a memory map keeps the pages out of this process's memory.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self._sums: list[np.ndarray] = []
        self._statistics: list[dict[str, np.ndarray]] = []

    def append(self, pixels: np.ndarray) -> None:
        """Appends (B, H, W, C) uint8 images."""
        if self.count == 0:
            self.shape = (1, *pixels.shape[1:])
            self._write_header()
        self.count += len(pixels)
        self.stream.write(pixels.data)
        sums = pixels.sum(axis=(1, 2), dtype=np.int64)
        squares = np.square(pixels, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
        self._sums.append(np.stack([sums, squares]))
        self._statistics.append(image_statistics(pixels))

    def finish(self) -> None:
        self.stream.seek(0)
        self._write_header()

    def moments(self, chosen: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of the chosen images, on the scale 0 to 1; from exact sums."""
        sums = np.concatenate(self._sums, axis=1)[:, chosen].sum(axis=1)
        pixels = int(chosen.sum()) * self.shape[1] * self.shape[2]
        mean = sums[0] / pixels
        deviation = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 1.0))  # a grey level at least: never divide by zero
        return [round(float(value), 6) for value in mean / 255], [round(float(value), 6) for value in deviation / 255]

    def statistics(self) -> dict[str, np.ndarray]:
        """Figures of every image, see `data.statistics`."""
        return {name: np.concatenate([part[name] for part in self._statistics]) for name in self._statistics[0]}

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)


def _write_manifest(path: Path, findings: Findings, splits: np.ndarray) -> None:
    names = pa.array(findings.group_names, pa.string())
    columns = {
        "id": pa.string(),
        "label": pa.int64(),
        "split": pa.string(),
        "group": pa.string(),
        "sha256": pa.string(),
    }
    ids, labels, groups, sha256 = findings.ids, findings.labels, findings.groups % len(names), findings.sha256
    with pq.ParquetWriter(path, pa.schema(list(columns.items())), compression="zstd") as writer:
        for start in range(0, len(labels), _MANIFEST_ROWS):
            rows = slice(start, start + _MANIFEST_ROWS)
            table = {
                "id": ids.slice(start, _MANIFEST_ROWS).combine_chunks(),
                "label": pa.array(labels[rows]),
                "split": pa.array(splitting.NAMES).take(pa.array(splits[rows])),
                "group": names.take(pa.array(groups[rows])),
                "sha256": pa.array([row.tobytes().hex() for row in sha256[rows]], pa.string()),
            }
            writer.write_table(pa.table(table))


def _summary(findings: Findings, splits: np.ndarray, writer: ImageWriter) -> dict[str, Any]:
    classes, labels = findings.source.classes, findings.labels
    mean, deviation = writer.moments(splits == splitting.TRAIN)
    conflicts, conflict_count = findings.conflicts()

    def counts(chosen: np.ndarray) -> dict[str, Any]:
        of_class = np.bincount(labels[chosen], minlength=len(classes)).tolist()
        return {"count": int(chosen.sum()), "classes": dict(zip(classes, of_class, strict=True))}

    return {
        "format": FORMAT,
        "classes": list(classes),
        "shape": list(writer.shape),
        "count": writer.count,
        "splits": {name: counts(splits == number) for number, name in enumerate(SPLITS)},
        "left_out": int((splits == splitting.OUT).sum()),
        "mean": mean,
        "std": deviation,
        "digest": _digest(findings, splits, writer.shape),
        "source": {"format": findings.source.format},
        "conflicts": conflicts,
        "conflict_count": conflict_count,
    }


def _digest(findings: Findings, splits: np.ndarray, shape: tuple[int, ...]) -> str:
    """SHA-256 over what decides a training: the shape, the classes, and each image's id, label, split and hash."""
    digest = hashlib.sha256(files.digest({"shape": shape, "classes": findings.source.classes}).encode())
    start = 0
    labels, sha256 = findings.labels, findings.sha256
    for ids in findings.ids.chunks:
        rows = range(start, start + len(ids))
        lines = (
            f"{id}\0{labels[row]}\0{splitting.NAMES[splits[row]]}\0{sha256[row].tobytes().hex()}\n"
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
