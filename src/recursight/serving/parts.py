"""Rows of a folder's images on disk, part by part, until all are one file.

A part is written under another name and renamed, because a parquet file without its end cannot be read.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from recursight.errors import InputError
from recursight.files import replacing
from recursight.registry.loading import LoadedVersion
from recursight.serving.listing import Listed, list_images, listed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 4096
PART_ROWS = 16_384
REPEATED = ["predicted", "model", "version"]  # columns of few values


class Parts:
    """The rows so far, on disk.

    Each part says in its metadata how much of the listing lies behind it: the number of images, and a digest of their
    paths, sizes and times.

    Args:
        folder: of the parts.
        model: whose answers they are.
        images: the folder that is scored.
    """

    def __init__(self, folder: Path, model: LoadedVersion, images: Path) -> None:
        self.rows = self.resumed = self.listed = 0
        self._folder, self._model, self._images = folder, model, images
        self._job = json.dumps([str(images.resolve()), model.name, model.version])
        self._digest = hashlib.sha256()
        self._files = sorted(folder.glob("part-*.parquet"))
        self._paths: list[str] = []  # of the row group to come
        self._scores: list[np.ndarray] = []
        self._writer: pq.ParquetWriter | None = None
        self._part_rows = 0

    def resume(self) -> Iterator[str]:
        """Paths of the images that are left after what the parts hold; all, if that is of something else."""
        import pyarrow.parquet as pq

        paths = list_images(self._images)
        if not self._files:
            return paths
        about = pq.read_metadata(self._files[-1]).metadata
        self._pass(listed(self._images, path) for path in islice(paths, int(about[b"listed"])))
        if about[b"job"].decode() == self._job and about[b"digest"].decode() == self._digest.hexdigest():
            self.rows = self.resumed = sum(pq.read_metadata(file).num_rows for file in self._files)
            return paths
        for file in self._files:
            file.unlink()
        self._files, self.listed, self._digest = [], 0, hashlib.sha256()
        return list_images(self._images)

    def add(self, images: Sequence[Listed], paths: Sequence[str], scores: np.ndarray) -> None:
        """Takes rows, which are written a row group at a time; a part that is long enough is finished.

        Args:
            images: that lie behind the rows, readable or not.
            paths: of the rows.
            scores: what the model says of them, (N, K).
        """
        self._paths += paths
        self._scores.append(scores)
        self._pass(images)
        self.rows += len(paths)
        self._part_rows += len(paths)
        if len(self._paths) >= GROUP_ROWS:
            self._write_group()
        if self._part_rows >= PART_ROWS:
            self.close()

    def close(self) -> None:
        """Finishes the part that is being written."""
        if not self._paths and self._writer is None:
            return
        self._write_group()
        assert self._writer is not None
        about = {"job": self._job, "listed": str(self.listed), "digest": self._digest.hexdigest()}
        self._writer.add_key_value_metadata(about)
        self._writer.close()
        self._writer, self._part_rows = None, 0
        file = self._folder / f"part-{len(self._files):06}.parquet"
        self._temporary.replace(file)
        self._files.append(file)

    def _write_group(self) -> None:
        import pyarrow.parquet as pq

        if not self._paths:
            return
        table = _table(self._model, self._paths, np.concatenate(self._scores))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._temporary, table.schema, use_dictionary=REPEATED)
        self._writer.write_table(table)
        self._paths, self._scores = [], []

    def merge(self, target: Path) -> None:
        """Makes the target of the parts, a row group at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.close()
        schema = _table(self._model, [], np.empty((0, len(self._model.classes)))).schema
        with replacing(target) as temporary, pq.ParquetWriter(temporary, schema, use_dictionary=REPEATED) as writer:
            for file in self._files:
                for batch in pq.ParquetFile(file).iter_batches(PART_ROWS):
                    writer.write_table(pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata))
        shutil.rmtree(self._folder)

    @property
    def _temporary(self) -> Path:
        return self._folder / "growing.parquet"

    def _pass(self, images: Iterable[Listed]) -> None:
        rest = iter(images)
        while batch := list(islice(rest, GROUP_ROWS)):
            self.listed += len(batch)
            lines = "".join(f"{path}\0{size}\0{changed}\n" for path, size, changed in batch)
            self._digest.update(lines.encode(errors="surrogateescape"))


def _table(model: LoadedVersion, paths: Sequence[str], scores: np.ndarray) -> "pa.Table":
    import pyarrow as pa

    count, classes = scores.shape
    values = np.ascontiguousarray(scores, np.float32)
    best = values.argmax(axis=1) if count else np.empty(0, int)
    offsets = np.arange(0, count * classes + 1, classes, dtype=np.int32)
    columns = {
        "path": pa.array(paths, pa.string()),
        "predicted": pa.array(model.classes, pa.string()).take(pa.array(best)),
        "confidence": pa.array(values[np.arange(count), best]),
        "probabilities": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel())),
        "model": pa.repeat(pa.scalar(model.name, pa.string()), count),
        "version": pa.array(np.full(count, model.version, np.int32)),
    }
    return pa.table(columns).replace_schema_metadata({"classes": json.dumps(model.classes)})


@contextmanager
def parts_folder(target: Path) -> Iterator[Path]:
    """Beside the target; held by one process at a time."""
    folder = target.with_name(f".{target.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout:
        raise InputError(
            f"another `recursight predict` is writing {target}; wait for it, or name another file."
        ) from None
    with suppress(OSError):
        folder.rmdir()
