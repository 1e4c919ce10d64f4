"""Predictions of the champion, kept for the drift check: parquet parts under `.recursight/predictions`.

A background thread writes. The part that is being filled is replaced every few seconds, by a rename, so every file is
complete at any moment, and a killed process loses only its last seconds. Several processes may log into one folder:
each writes separate parts, and each drops the oldest.
"""

import io
import itertools
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recursight.data.statistics import image_statistics
from recursight.processes import is_alive_since
from recursight.registry.loading import LoadedVersion
from recursight.serving.columns import answer_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Source = Literal["serve", "predict"]

COLUMNS = ("time", "source", "model", "version")  # of any log, also of an empty one
FLUSH_SECONDS = 2.0
TABLE_ROWS = 256  # of small requests made into one table: tables have a cost of their own
PART_ROWS = 8192
PART_BYTES = 8_000_000  # of images
MOST_PARTS = 4096
MOST_WAITING_BYTES = 64_000_000

_log = logging.getLogger("recursight.serving")
_numbers = itertools.count()  # distinguishes the parts of one process


@dataclass(frozen=True)
class _Entry:
    time: datetime
    source: Source
    model: LoadedVersion
    images: np.ndarray
    answers: np.ndarray

    @property
    def bytes(self) -> int:
        return int(self.images.nbytes + self.answers.nbytes + 500)

    def is_like(self, other: "_Entry") -> bool:
        return self.model is other.model and self.source == other.source


class PredictionLog:
    """Records predictions without delaying them.

    Columns: time (UTC), source, those of `columns.answer_columns`, one for each figure of `data.statistics`, and, if
    wanted, `image` (PNG).

    Args:
        folder: of the parts.
        rows: kept at most, in the folder as a whole, give or take a request; the oldest parts (an eighth of the rows,
            or 8,192) go first.
        images: whether the images are kept too, as the model took them.
        flush_seconds: by which what was recorded is on disk.
    """

    def __init__(self, folder: Path, *, rows: int, images: bool = False, flush_seconds: float = FLUSH_SECONDS) -> None:
        self.dropped = 0  # rows that were never written, since writing could not keep up
        self._folder, self._images, self._flush_seconds = folder, images, flush_seconds
        self._part_rows = min(PART_ROWS, max(rows // 8, 1))
        self._older_rows = rows - self._part_rows
        self._random = np.random.default_rng()
        self._waiting: deque[_Entry] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._closed = False
        self._failed = False
        self._part = _Part(folder, self._part_rows, images)
        folder.mkdir(parents=True, exist_ok=True)
        import_module("pyarrow.parquet")  # now, since it keeps all answers waiting for half a second
        _sweep(folder)
        _bound(folder, self._older_rows)
        self._writer = threading.Thread(target=self._write, name="prediction log", daemon=True)
        self._writer.start()

    def record(
        self,
        source: Source,
        model: LoadedVersion,
        images: np.ndarray,
        answers: np.ndarray,
        *,
        share: float = 1.0,
        wait: bool = False,
    ) -> None:
        """Queues answers for writing.

        Args:
            source: the command.
            model: the version that answered.
            images: uint8 (N, H, W, C), as the model took them; must not be changed afterwards.
            answers: (N, ...).
            share: of the rows to log, drawn at random.
            wait: until there is room, if writing cannot keep up; otherwise these rows are dropped and counted.
        """
        if share < 1:
            drawn = np.flatnonzero(self._random.random(len(images)) < share)
            images, answers = images[drawn], answers[drawn]
        if not len(images):
            return
        entry = _Entry(datetime.now(UTC), source, model, images, answers)
        with self._change:
            while wait and self._bytes > MOST_WAITING_BYTES and not self._closed:
                self._change.wait(timeout=1)
            if self._closed or self._bytes > MOST_WAITING_BYTES:
                self.dropped += len(images)
                return
            self._waiting.append(entry)
            self._bytes += entry.bytes
            if wait and self._bytes > MOST_WAITING_BYTES // 2:
                self._change.notify_all()

    def close(self) -> None:
        """Writes the remaining rows."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._writer.join()

    def __enter__(self) -> "PredictionLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self) -> None:
        while not self._closed:
            with self._change:
                if not self._closed:
                    self._change.wait(timeout=self._flush_seconds)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """A failure to write (a full disk) is logged once, and costs only rows of the log."""
        try:
            while entries := self._take():
                if not self._part.takes(entries[0].model):
                    self._part.write()
                    _bound(self._folder, self._older_rows)
                    self._part = _Part(self._folder, self._part_rows, self._images)
                self._part.add(entries)
            self._part.write()
            self._failed = False
        except Exception as error:  # a log that fails must not stop predictions
            if not self._failed:
                _log.error("the prediction log cannot be written: %s", error)
            self._failed = True

    def _take(self) -> list[_Entry]:
        """The first waiting entry, and those that fit into a table with it."""
        taken: list[_Entry] = []
        rows = size = 0
        with self._change:
            while (
                self._waiting
                and rows < min(TABLE_ROWS, self._part_rows)
                and size < PART_BYTES
                and (not taken or self._waiting[0].is_like(taken[0]))
            ):
                taken.append(self._waiting.popleft())
                rows += len(taken[-1].images)
                size += taken[-1].bytes
            self._bytes -= size
            self._change.notify_all()
        return taken


class _Part:
    """The rows of one file, all of one version; the file is replaced whenever it has grown."""

    def __init__(self, folder: Path, most_rows: int, images: bool) -> None:
        self._folder, self._most_rows, self._images = folder, most_rows, images
        self._tables: list[pa.Table] = []
        self._model: LoadedVersion | None = None
        self._rows = self._image_bytes = self._written = 0
        self._name = ""

    def takes(self, model: LoadedVersion) -> bool:
        full = self._rows >= self._most_rows or self._image_bytes >= PART_BYTES
        return self._model is None or (self._model is model and not full)

    def add(self, entries: Sequence[_Entry]) -> None:
        first = entries[0]
        self._model = first.model
        self._name = self._name or f"{first.time:%Y%m%dT%H%M%S.%f}-{os.getpid()}-{next(_numbers)}.parquet"
        table = _table(entries, self._images)
        self._tables.append(table)
        self._rows += len(table)
        self._image_bytes += table["image"].nbytes if self._images else 0

    def write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._rows == self._written:
            return
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        temporary = self._folder / f".{os.getpid()}.{self._name}"
        pq.write_table(self._tables[0], temporary)
        temporary.replace(self._folder / self._name)
        self._written = self._rows


def _table(entries: Sequence[_Entry], with_images: bool) -> "pa.Table":
    import pyarrow as pa

    source, model = entries[0].source, entries[0].model
    images = np.concatenate([entry.images for entry in entries])
    times = [entry.time for entry in entries for _ in entry.images]
    columns: dict[str, Any] = {
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "source": pa.repeat(pa.scalar(source, pa.string()), len(images)),
        **answer_columns(model, np.concatenate([entry.answers for entry in entries])),
    }
    columns |= {name: pa.array(np.asarray(one, np.float32)) for name, one in image_statistics(images).items()}
    if with_images:
        columns["image"] = pa.array([_png(image) for image in images], pa.binary())
    return pa.table(columns).replace_schema_metadata({"vocabulary": json.dumps(model.vocabulary)})


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG")
        return file.getvalue()


def _parts(folder: Path) -> list[Path]:
    """The oldest first: names begin with the time of the first row."""
    return sorted(folder.glob("[!.]*.parquet"))


def _bound(folder: Path, rows: int) -> None:
    """Drops the oldest parts until no more than these rows are left."""
    kept = 0
    for number, path in enumerate(reversed(_parts(folder)), start=1):
        kept += _rows_in(path)
        if kept > rows or number > MOST_PARTS:
            path.unlink(missing_ok=True)


def _rows_in(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):  # gone meanwhile, or damaged by a failing disk
        return 0


def _sweep(folder: Path) -> None:
    """Removes unfinished files of killed processes."""
    for path in folder.glob(".*.parquet"):
        pid = path.name[1:].partition(".")[0]
        with suppress(FileNotFoundError):  # complete meanwhile
            if not pid.isdigit() or not is_alive_since(int(pid), path.stat().st_mtime):
                path.unlink()


def read_log(folder: Path, since: datetime | None = None) -> "pd.DataFrame":
    """The recorded predictions, the oldest first, in the columns of `PredictionLog`; figures that a part lacks are NaN.

    A damaged part is logged and left out.

    Args:
        folder: of the parts; need not exist.
        since: with a time zone; earlier predictions are left out.
    """
    import pandas as pd

    tables = [table.to_pandas() for path in _parts(folder) if len(table := _read(path, since))]
    if not tables:
        return pd.DataFrame({name: [] for name in COLUMNS}).astype({"time": "datetime64[us, UTC]"})
    log: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return log.sort_values("time", kind="stable", ignore_index=True)


def _read(path: Path, since: datetime | None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:  # dropped by a writer meanwhile
        return pa.table({})
    except (pa.ArrowInvalid, OSError) as error:
        _log.warning("%s cannot be read, and is left out: %s", path, error)
        return pa.table({})
    if since is None:
        return table
    import pyarrow.compute as pc

    return table.filter(pc.greater_equal(table["time"], pa.scalar(since, pa.timestamp("us", "UTC"))))
