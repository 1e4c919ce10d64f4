"""One small set of pictures, written in every format that there is a reader for."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from recursight.data.readers import idx

CLASSES = ("2", "10")
PER_CLASS = 20


def pictures(channels: int = 1, per_class: int = PER_CLASS, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Distinct random pictures, H 6 × W 5, by class."""
    draw = np.random.default_rng(seed)
    shape = (6, 5) if channels == 1 else (6, 5, channels)
    return {name: [draw.integers(0, 256, shape, np.uint8) for _ in range(per_class)] for name in CLASSES}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def splits_of(classes: dict[str, list[np.ndarray]], with_splits: bool) -> list[tuple[str | None, str, np.ndarray]]:
    """(split, label, pixels) in the order of an image folder: by split, then by class; a quarter is for testing."""
    rows: list[tuple[str | None, str, np.ndarray]] = []
    for name, images in classes.items():
        quarter = len(images) // 4
        for number, pixels in enumerate(images):
            rows.append((("test" if number < quarter else "train") if with_splits else None, name, pixels))
    return sorted(rows, key=lambda row: (row[0] == "test", CLASSES.index(row[1])))


Rows = list[tuple[str | None, str, np.ndarray]]


def write_idx(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in dict.fromkeys(row[0] for row in rows):
        prefix = {"train": "train-", "test": "t10k-", None: ""}[split]
        images = np.stack([pixels for each, _, pixels in rows if each == split])
        labels = np.array([CLASSES.index(label) for each, label, _ in rows if each == split], np.uint8)
        idx.write(folder / f"{prefix}images-idx{images.ndim}-ubyte.gz", images)
        idx.write(folder / f"{prefix}labels-idx1-ubyte", labels)
    (folder / "classes.txt").write_text("\n".join(CLASSES))


def write_folder(folder: Path, rows: Rows) -> None:
    for number, (split, label, pixels) in enumerate(rows):
        path = folder / (split or "") / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))


def write_manifest(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for number, (split, label, pixels) in enumerate(rows):
            (folder / f"{number}.png").write_bytes(png(pixels))
            writer.writerow([f"{number}.png", label, split or ""])


def write_parquet(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in dict.fromkeys(row[0] for row in rows):
        chosen = [row for row in rows if row[0] == split]
        table = parquet_table(
            [png(pixels) for _, _, pixels in chosen], [CLASSES.index(label) for _, label, _ in chosen]
        )
        pq.write_table(table, folder / f"{split or 'images'}-00000-of-00001.parquet")


def parquet_table(images: list[bytes | None], labels: list[int]) -> pa.Table:
    """As Hugging Face's library writes it."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = [{"bytes": image, "path": None} for image in images]
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table([pa.array(structs, kind), pa.array(labels, pa.int64())], schema=schema.with_metadata(metadata))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "idx": write_idx,
    "manifest": write_manifest,
    "parquet": write_parquet,
    "folder": write_folder,
}
