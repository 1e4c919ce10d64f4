"""Packs images into parquet shards as on Hugging Face, without changing their encoded bytes.

A shard holds about 64 MB, a row group about 4 MB; each split has separate shards, named after it. The reasons for
packing are in docs/decisions/0002-packed-imports.md.
"""

import io
import json
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from recursight.data.records import Record

SHARD_BYTES = 64_000_000
_GROUP_BYTES = 4_000_000
_GROUP_ROWS = 1_000


class PackWriter:
    """Writes records into a folder; as a context manager it finishes the last shards.

    Args:
        folder: exists and is empty.
        classes: names, in the order of their labels.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.folder = folder
        self.label_of = {name: number for number, name in enumerate(classes)}
        self.schema = _schema(classes)
        self._shards: dict[str | None, _Shard] = {}

    def append(self, record: Record) -> None:
        """Adds a record; pixels are encoded as PNG."""
        shard = self._shards.setdefault(record.split, _Shard(self.folder, record.split or "images", self.schema))
        image = _png(record.image) if isinstance(record.image, np.ndarray) else record.image
        row = {
            "id": record.id,
            "image": {"bytes": image, "path": record.id.rsplit("/", 1)[-1]},
            "label": self.label_of[record.label],
            "group": record.group,
        }
        shard.append(row, len(image) if isinstance(image, bytes) else 0)

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._shards.values():
            shard.close()


class _Shard:
    """The shards of one split, one open at a time."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self.folder, self.name, self.schema = folder, name, schema
        self.number = 0
        self.rows: list[dict[str, object]] = []
        self.group_bytes = self.shard_bytes = 0
        self.writer: pq.ParquetWriter | None = None

    def append(self, row: dict[str, object], size: int) -> None:
        self.rows.append(row)
        self.group_bytes += size
        if self.group_bytes >= _GROUP_BYTES or len(self.rows) >= _GROUP_ROWS:
            self._write_group()
            if self.shard_bytes >= SHARD_BYTES:
                self.close()

    def close(self) -> None:
        self._write_group()
        if self.writer:
            self.writer.close()
            self.writer = None
            self.number += 1
            self.shard_bytes = 0

    def _write_group(self) -> None:
        if not self.rows:
            return
        if self.writer is None:
            path = self.folder / f"{self.name}-{self.number:05}.parquet"
            # Encoded images cannot be compressed further, and a dictionary of them would only use memory.
            self.writer = pq.ParquetWriter(path, self.schema, compression="none", use_dictionary=["label", "group"])
        self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.shard_bytes += self.group_bytes
        self.rows, self.group_bytes = [], 0


def _schema(classes: tuple[str, ...]) -> pa.Schema:
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
        "group": {"dtype": "string", "_type": "Value"},
    }
    return pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("group", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()
