"""Rows of a folder's images on disk: part files, joined to one file at the end.

A parquet file without its footer cannot be read, so each part is a complete file, written under a temporary name.
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
from recursight.serving.columns import answer_columns
from recursight.serving.listing import Listed, list_images, listed
from recursight.terminal import printable

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 4096
LINES = 4096  # of the listing, digested at once


class Parts:
    """The rows so far, on disk.

    The metadata of each part describe the listing up to its end: the number of images, and a digest of their paths,
    sizes and times.

    Args:
        folder: of the parts.
        model: that gives the answers.
        images: the folder that is scored.
    """

    def __init__(self, folder: Path, model: LoadedVersion, images: Path) -> None:
        self.rows = self.resumed = self.listed = 0
        self._folder, self._model, self._images = folder, model, images
        self._job = json.dumps([str(images.resolve()), model.name, model.version])
        self._digest = hashlib.sha256()
        self._files = sorted(folder.glob("part-*.parquet"))
        self._paths: list[str] = []  # of the part to come
        self._answers: list[np.ndarray] = []

    def resume(self) -> Iterator[str]:
        """Paths of the images after those in the parts; of all images, if the parts belong to another listing."""
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

    def add(self, images: Sequence[Listed], paths: Sequence[str], answers: np.ndarray) -> None:
        """Adds rows; enough of them are written as a part.

        Args:
            images: of the batch, readable or not.
            paths: of the rows.
            answers: for them, (N, ...).
        """
        self._paths += paths
        self._answers.append(answers)
        self._pass(images)
        self.rows += len(paths)
        if len(self._paths) >= PART_ROWS:
            self.close()

    def close(self) -> None:
        """Writes the rows that are in no part yet."""
        import pyarrow.parquet as pq

        if not self._paths:
            return
        about = {"job": self._job, "listed": str(self.listed), "digest": self._digest.hexdigest()}
        table = _table(self._model, self._paths, np.concatenate(self._answers)).replace_schema_metadata(about)
        file = self._folder / f"part-{len(self._files):06}.parquet"
        with replacing(file) as temporary:
            pq.write_table(table, temporary)
        self._files.append(file)
        self._paths, self._answers = [], []

    def merge(self, target: Path) -> None:
        """Joins the parts, one at a time, to the target."""
        import pyarrow.parquet as pq

        self.close()
        nothing = _table(self._model, [], self._model.answers(np.empty((0, *self._model.input_shape), np.uint8)))
        schema = nothing.schema.with_metadata({"vocabulary": json.dumps(self._model.vocabulary)})
        with replacing(target) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for file in self._files:
                writer.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))
        shutil.rmtree(self._folder)

    def _pass(self, images: Iterable[Listed]) -> None:
        rest = iter(images)
        while batch := list(islice(rest, LINES)):
            self.listed += len(batch)
            lines = "".join(f"{path}\0{size}\0{changed}\n" for path, size, changed in batch)
            self._digest.update(lines.encode(errors="surrogateescape"))


def _table(model: LoadedVersion, paths: Sequence[str], answers: np.ndarray) -> "pa.Table":
    import pyarrow as pa

    return pa.table({"path": pa.array(map(printable, paths), pa.string()), **answer_columns(model, answers)})


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
