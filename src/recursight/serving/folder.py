"""Scores a folder of any size into one parquet file.

Each thread decodes a batch and asks the model about it, so that one decodes while another computes: threads inside the
model would only wait for processors that decode. Plain PNG files of the right size are decoded by native code. Rows go
to disk as they come, into parts beside the target, each whole or absent. A killed run goes on after its last part, if
the images before that are still the same. The parts become the target, in one rename, when all is done.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from recursight.data.images import BadImage
from recursight.data.readers.folder import IMAGE_SUFFIXES
from recursight.errors import InputError
from recursight.files import replacing
from recursight.registry.loading import LoadedVersion
from recursight.serving import png
from recursight.serving.champion import decode_for

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 256  # images, or as many as BATCH_BYTES hold
BATCH_BYTES = 8_000_000
SMALL_BYTES = 1_000_000
GROUP_ROWS = 4096
PART_ROWS = 16_384
REPEATED = ["predicted", "model", "version"]  # columns of few values
NAMED = 20  # unreadable images in one sentence

_one_decodes = threading.Lock()  # two hand Python's own lock to and fro with each small file, and are slower than one

Listed = tuple[str, int, int]  # path below the folder, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Scored:
    """What became of a folder.

    Attributes:
        rows: in the file.
        resumed: of them, from an earlier run that was stopped.
        skipped: images that cannot be read.
        images_per_second: of those that this run has scored, from the first file to the last row.
    """

    rows: int
    resumed: int
    skipped: int
    images_per_second: float


@dataclass(frozen=True)
class _Batch:
    """Images that were listed one after another.

    Attributes:
        listed: all of them.
        paths: of those that can be read.
        images: these, uint8 (N, H, W, C), as the model takes them.
        scores: what the model says of them, (N, K).
        faults: paths of the others, and why.
    """

    listed: list[Listed]
    paths: list[str]
    images: np.ndarray
    scores: np.ndarray
    faults: list[tuple[str, str]]


def score_folder(
    model: LoadedVersion,
    folder: Path,
    target: Path,
    *,
    skip: Callable[[str], None] | None = None,
    report: Callable[[int], None] = lambda done: None,
    found: Callable[[np.ndarray, np.ndarray], None] = lambda images, scores: None,
    threads: int | None = None,
) -> Scored:
    """Answers for every image in a folder and below, in the order of their paths.

    Columns: path (below the folder), predicted, confidence, probabilities (in the order of the key `classes` in the
    schema's metadata, a JSON list), model, version.

    Args:
        model: that answers.
        folder: of images, in the formats that `prepare` reads; hidden files and linked folders are left out.
        target: of the rows; it is replaced at the end.
        skip: is told of each image that cannot be read; None refuses the first batch that has one.
        report: is told how many images are done.
        found: is told of each batch: images (N, H, W, C), probabilities (N, K).
        threads: that decode and ask the model; by default one for each processor.

    Raises:
        InputError: if there is no image, one cannot be read, or another run writes the same file.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file, such as {target / 'predictions.parquet'}.")
    with _parts_folder(target) as folder_of_parts, closing(_Parts(folder_of_parts, model, folder)) as parts:
        paths = parts.resume()
        report(parts.listed)
        started = time.perf_counter()
        for batch in _answered(model, folder, paths, threads or os.cpu_count() or 1):
            for path, reason in batch.faults:
                if skip is None:
                    raise InputError(_refusal(folder, batch.faults))
                skip(f"{folder / path} {reason}")
            parts.add(batch)
            if batch.paths:
                found(batch.images, batch.scores)
            report(parts.listed)
        if not parts.listed:
            raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES[:6])}, ...).")
        parts.merge(target)
        rate = (parts.rows - parts.resumed) / (time.perf_counter() - started)
        return Scored(parts.rows, parts.resumed, parts.listed - parts.rows, rate)


def count_images(folder: Path) -> int:
    """How many images `score_folder` will find."""
    return sum(1 for _ in list_images(folder))


def list_images(folder: Path | str, prefix: str = "") -> Iterator[str]:
    """Paths in the order of their names, folder by folder; the names of one folder are in memory at a time."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from list_images(entry.path, f"{prefix}{entry.name}/")
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield prefix + entry.name


def _answered(model: LoadedVersion, folder: Path, paths: Iterator[str], threads: int) -> Iterator[_Batch]:
    """Batches in the order of the paths; a few are made ahead."""
    import torch

    size = int(max(1, min(BATCH, BATCH_BYTES // prod(model.input_shape))))
    with ThreadPoolExecutor(threads, "scoring", torch.set_num_threads, (1,)) as pool:
        ahead: deque[Future[_Batch]] = deque()
        try:
            while group := list(islice(paths, size)):
                ahead.append(pool.submit(_answer, model, folder, group))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _answer(model: LoadedVersion, folder: Path, paths: list[str]) -> _Batch:
    images = np.empty((len(paths), *model.input_shape), np.uint8)
    done, versions = png.decode_files(folder, paths, images)
    listed = [(path, size, changed) for path, (size, changed) in zip(paths, versions.tolist(), strict=True)]
    faults: dict[int, str] = {}
    if not done.all():
        with _one_decodes:
            for place in np.flatnonzero(~done).tolist():
                listed[place] = _listed(folder, paths[place])
                try:
                    images[place] = decode_for(model, _content(folder / paths[place], listed[place][1]))
                except BadImage as fault:
                    faults[place] = str(fault)
    if faults:
        images = np.delete(images, list(faults), axis=0)
    readable = [path for place, path in enumerate(paths) if place not in faults]
    named = [(paths[place], reason) for place, reason in faults.items()]
    return _Batch(listed, readable, images, model.scores(images), named)


def _listed(folder: Path, path: str) -> Listed:
    try:
        status = (folder / path).stat()
    except OSError:  # told when it is decoded
        return path, 0, 0
    return path, status.st_size, status.st_mtime_ns


def _content(path: Path, size: int) -> bytes | Path:
    """The bytes of a small file, whose opening is a good part of its decoding; Pillow reads the others itself."""
    if size < SMALL_BYTES:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if len(content := os.read(descriptor, size + 1)) == size:
                    return content
            finally:
                os.close(descriptor)
    return path


def _refusal(folder: Path, faults: list[tuple[str, str]]) -> str:
    lines = [f"{folder / path} {reason}" for path, reason in faults[:NAMED]]
    more = f" (here are {len(faults) - NAMED} more)" * (len(faults) > NAMED)
    return "\n".join(
        [*lines, f"--skip-bad goes on without unreadable images{more}; the same command with it goes on here."]
    )


class _Parts:
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
        self._tables: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._part_rows = 0

    def resume(self) -> Iterator[str]:
        """Paths of the images that are left after what the parts hold; all, if that is of something else."""
        import pyarrow.parquet as pq

        paths = list_images(self._images)
        if not self._files:
            return paths
        about = pq.read_metadata(self._files[-1]).metadata
        self._pass(_listed(self._images, path) for path in islice(paths, int(about[b"listed"])))
        if about[b"job"].decode() == self._job and about[b"digest"].decode() == self._digest.hexdigest():
            self.rows = self.resumed = sum(pq.read_metadata(file).num_rows for file in self._files)
            return paths
        for file in self._files:
            file.unlink()
        self._files, self.listed, self._digest = [], 0, hashlib.sha256()
        return list_images(self._images)

    def add(self, batch: _Batch) -> None:
        """Takes rows, which are written a row group at a time; a part that is long enough is finished."""
        self._tables.append(_table(self._model, batch.paths, batch.scores))
        self._pass(batch.listed)
        self.rows += len(batch.paths)
        self._part_rows += len(batch.paths)
        if sum(map(len, self._tables)) >= GROUP_ROWS:
            self._write_group()
        if self._part_rows >= PART_ROWS:
            self.close()

    def close(self) -> None:
        """Finishes the part that is being written."""
        if not self._tables and self._writer is None:
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
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._tables:
            return
        table = pa.concat_tables(self._tables).combine_chunks()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._temporary, table.schema, use_dictionary=REPEATED)
        self._writer.write_table(table)
        self._tables = []

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

    def _pass(self, listed: Iterable[Listed]) -> None:
        for path, size, changed in listed:
            self.listed += 1
            self._digest.update(f"{path}\0{size}\0{changed}\n".encode(errors="surrogateescape"))


def _table(model: LoadedVersion, paths: Sequence[str], scores: np.ndarray) -> "pa.Table":
    import pyarrow as pa

    count, classes = scores.shape
    values = np.ascontiguousarray(scores, np.float32)
    best = values.argmax(axis=1) if count else np.empty(0, int)
    offsets = np.arange(0, count * classes + 1, classes, dtype=np.int32)
    columns = {
        "path": pa.array(paths, pa.string()),
        "predicted": pa.array(np.array(model.classes, dtype=object)[best], pa.string()),
        "confidence": pa.array(values[np.arange(count), best]),
        "probabilities": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel())),
        "model": pa.array([model.name] * count, pa.string()),
        "version": pa.array(np.full(count, model.version, np.int32)),
    }
    return pa.table(columns).replace_schema_metadata({"classes": json.dumps(model.classes)})


@contextmanager
def _parts_folder(target: Path) -> Iterator[Path]:
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
