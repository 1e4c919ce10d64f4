"""From any source to the one store: decode, fit, write, split. One pass, and never more in memory than a few chunks.

What grows with the number of images is about 150 bytes for each: its id, label, group, hash and pixel sums.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recursight import files
from recursight.data import split as splitting
from recursight.data.examples import Example, Findings, Progress, examples
from recursight.data.images import Channels, Resize, decode
from recursight.data.readers import open_source
from recursight.data.records import SPLITS
from recursight.errors import InputError

FORMAT = 1
_LISTED_CONFLICTS = 100


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
    opened = open_source(source)
    findings = Findings()
    columns = Columns(opened.classes)
    with files.replacing(folder) as staging:
        staging.mkdir()
        with (staging / "images.npy").open("wb") as stream:
            writer = ImageWriter(stream)
            chunks = examples(opened, lambda record: decode(record.image, size, resize, channels), findings, progress)
            for chunk in chunks:
                if len(findings.shapes) > 1:
                    continue  # refused below; the pass goes on, to tell everything that is wrong
                pixels = np.stack([example.pixels for example in chunk])
                writer.append(pixels)
                columns.append(chunk, pixels)
            findings.refuse(opened, skip_bad)
            _require_one_shape(findings)
            writer.finish()
        summary = columns.write(staging, opened.format, next(iter(findings.shapes)), validation, test, seed)
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

    def append(self, pixels: np.ndarray) -> None:
        """Appends (B, H, W, C) uint8 images."""
        if self.count == 0:
            self.shape = (1, *pixels.shape[1:])
            self._write_header()
        self.count += len(pixels)
        self.stream.write(pixels.data)

    def finish(self) -> None:
        self.stream.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.stream, header)


class Columns:
    """What is kept of each image until the splits are known; in arrays, since there may be millions."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.label_of = {name: number for number, name in enumerate(classes)}
        self.split_of: dict[str | None, int] = {name: number for number, name in enumerate(SPLITS)}
        self.split_of[None] = splitting.UNSAID
        self.group_of: dict[str | None, int] = {None: -1}
        self.ids: list[pa.Array] = []
        self.numbers: list[np.ndarray] = []
        self.sha256: list[np.ndarray] = []
        self.sums: list[np.ndarray] = []

    def append(self, chunk: list[Example], pixels: np.ndarray) -> None:
        """Adds a chunk of examples, whose pixels are also given stacked (B, H, W, C)."""
        records = [example.record for example in chunk]
        groups = [self.group_of.setdefault(record.group, len(self.group_of) - 1) for record in records]
        numbers = [
            (self.label_of[record.label], self.split_of[record.split], group)
            for record, group in zip(records, groups, strict=True)
        ]
        self.ids.append(pa.array([record.id for record in records], pa.string()))
        self.numbers.append(np.array(numbers, np.int32))
        self.sha256.append(np.frombuffer(b"".join(example.sha256 for example in chunk), np.uint8).reshape(-1, 32))
        first = pixels.sum(axis=(1, 2), dtype=np.int64)
        second = np.square(pixels, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
        self.sums.append(np.stack([first, second]))

    def write(
        self, folder: Path, format: str, shape: tuple[int, int, int], validation: float, test: float, seed: int
    ) -> dict[str, Any]:
        """Splits, writes manifest.parquet and returns the content of store.json."""
        labels, official, groups = (column.astype(np.int64) for column in np.concatenate(self.numbers).T)
        sha256 = np.concatenate(self.sha256)
        ids = pa.chunked_array(self.ids)
        splits = splitting.assign(
            labels,
            official,
            splitting.units_of(sha256, groups),
            sha256,
            classes=self.classes,
            validation=validation,
            test=test,
            seed=seed,
        )
        names = [name or "" for name in self.group_of]
        manifest = pa.table(
            {
                "id": ids,
                "label": pa.array(labels),
                "split": pa.array(splitting.NAMES).take(pa.array(splits)),
                "group": pa.array(names, pa.string()).take(pa.array(groups + 1)),
                "sha256": pa.array([row.tobytes().hex() for row in sha256], pa.string()),
            }
        )
        pq.write_table(manifest, folder / "manifest.parquet", compression="zstd")
        mean, std = self._moments(splits == splitting.TRAIN, shape)
        full_shape = [1, *shape]
        clashes, clash_count = _conflicts(sha256, labels, ids)
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "shape": full_shape,
            "count": len(labels),
            "splits": {name: self._counts(labels[splits == number]) for number, name in enumerate(SPLITS)},
            "left_out": int((splits == splitting.OUT).sum()),
            "mean": mean,
            "std": std,
            "digest": _digest(full_shape, self.classes, manifest),
            "source": {"format": format},
            "conflicts": clashes,
            "conflict_count": clash_count,
        }

    def _counts(self, labels: np.ndarray) -> dict[str, Any]:
        counts = np.bincount(labels, minlength=len(self.classes)).tolist()
        return {"count": len(labels), "classes": dict(zip(self.classes, counts, strict=True))}

    def _moments(self, chosen: np.ndarray, shape: tuple[int, int, int]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, on the scale 0 to 1; exact sums, so independent of the order."""
        sums = np.concatenate(self.sums, axis=1)[:, chosen].sum(axis=1)
        pixels = int(chosen.sum()) * shape[0] * shape[1]
        mean = sums[0] / pixels
        std = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 1.0))  # one grey level at least: never divide by zero
        return [round(float(value), 6) for value in mean / 255], [round(float(value), 6) for value in std / 255]


def _require_one_shape(findings: Findings) -> None:
    shapes = findings.shapes
    if len({shape[:2] for shape in shapes}) > 1:
        sizes = Counter[tuple[int, int]]()
        for shape, count in shapes.items():
            sizes[shape[:2]] += count
        examples_of = {shape[:2]: name for shape, name in findings.first_of_shape.items()}
        commonest = sizes.most_common(5)
        listed = ", ".join(f"{h}×{w} ({count:,}, such as {examples_of[h, w]})" for (h, w), count in commonest)
        raise InputError(
            f"the images have {len(sizes):,} sizes: {listed}{', ...' if len(sizes) > 5 else ''}; "
            f"set prepare.size in params.yaml, such as size: {list(commonest[0][0])}."
        )
    if len(shapes) > 1:
        listed = ", ".join(
            f"{count:,} {'grey' if shape[2] == 1 else 'RGB'} (such as {findings.first_of_shape[shape]})"
            for shape, count in shapes.most_common()
        )
        raise InputError(
            f"the images have different channels: {listed}; set prepare.channels in params.yaml to grey or rgb."
        )


def _conflicts(sha256: np.ndarray, labels: np.ndarray, ids: pa.ChunkedArray) -> tuple[list[list[str]], int]:
    """Ids of identical images with different labels, the first ones only, and how many such images there are."""
    same = splitting.identity(sha256)
    order = np.lexsort((labels, same))
    torn = (same[order][1:] == same[order][:-1]) & (labels[order][1:] != labels[order][:-1])
    images = np.unique(same[order][1:][torn])
    rows = [np.flatnonzero(same == image) for image in images[:_LISTED_CONFLICTS]]
    listed = sorted((members for members in rows), key=lambda members: int(members[0]))
    return [[ids[int(row)].as_py() for row in members] for members in listed], len(images)


def _digest(shape: list[int], classes: Iterable[str], manifest: pa.Table) -> str:
    """SHA-256 over what decides a training: the shape, the classes, and each image's id, label, split and hash."""
    digest = hashlib.sha256(files.digest({"shape": shape, "classes": list(classes)}).encode())
    for batch in manifest.select(["id", "label", "split", "sha256"]).to_batches(max_chunksize=10_000):
        columns = [column.to_pylist() for column in batch.columns]
        digest.update(
            "".join(f"{id}\0{label}\0{split}\0{sha}\n" for id, label, split, sha in zip(*columns, strict=True)).encode()
        )
    return digest.hexdigest()
