"""Scores a folder of any size into one parquet file.

Each thread decodes a batch and runs the model on it, so that one thread decodes while another computes; threads inside
the model would wait for processors that decode. Rows are written as they come, into complete part files beside the
target. A killed run resumes after its last part, provided that the images before it are unchanged. At the end the parts
become the target, in one rename.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from recursight.data.images import BadImage
from recursight.data.readers.folder import IMAGE_SUFFIXES
from recursight.errors import InputError
from recursight.registry.loading import LoadedVersion
from recursight.serving.champion import decode_for
from recursight.serving.listing import Listed, listed
from recursight.serving.parts import Parts, parts_folder

BATCH = 256  # images, or as many as BATCH_BYTES hold
BATCH_BYTES = 2_000_000  # larger feature maps leave the CPU's cache, and their memory is mapped anew for each batch
NAMED = 20  # unreadable images in one sentence


@dataclass(frozen=True)
class Scored:
    """The result of scoring a folder.

    Attributes:
        rows: in the file.
        resumed: rows among them from an earlier run that was stopped.
        skipped: images that cannot be read.
        images_per_second: of those that this run scored, from the first file to the last row.
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
        answers: for these, (N, ...).
        faults: paths of the others, and why.
    """

    listed: list[Listed]
    paths: list[str]
    images: np.ndarray
    answers: np.ndarray
    faults: list[tuple[str, str]]


def score_folder(
    model: LoadedVersion,
    folder: Path,
    target: Path,
    *,
    skip: Callable[[str], None] | None = None,
    report: Callable[[int], None] = lambda done: None,
    found: Callable[[np.ndarray, np.ndarray], None] = lambda images, answers: None,
    threads: int | None = None,
) -> Scored:
    """Answers for every image in a folder and below, in the order of their paths.

    Columns: path (below the folder), and those of `columns.answer_columns`.

    Args:
        model: that answers.
        folder: of images, in the formats that `prepare` reads; hidden files and linked folders are left out.
        target: of the rows; it is replaced at the end.
        skip: is called with a sentence for each image that cannot be read; None refuses the first batch that has one.
        report: is called with the number of images done.
        found: is called after each batch: images (N, H, W, C), answers (N, ...).
        threads: that decode and run the model; by default one for each processor.

    Raises:
        InputError: if there is no image, one cannot be read, or another run writes the same file.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file, such as {target / 'predictions.parquet'}.")
    with parts_folder(target) as folder_of_parts, closing(Parts(folder_of_parts, model, folder)) as parts:
        paths = parts.resume()
        report(parts.listed)
        started = time.perf_counter()
        for batch in _answered(model, folder, paths, threads or os.cpu_count() or 1):
            for path, reason in batch.faults:
                if skip is None:
                    raise InputError(_refusal(folder, batch.faults))
                skip(f"{folder / path} {reason}")
            parts.add(batch.listed, batch.paths, batch.answers)
            if batch.paths:
                found(batch.images, batch.answers)
            report(parts.listed)
        if not parts.listed:
            raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES[:6])}, ...).")
        parts.merge(target)
        rate = (parts.rows - parts.resumed) / (time.perf_counter() - started)
        return Scored(parts.rows, parts.resumed, parts.listed - parts.rows, rate)


def batch_size(model: LoadedVersion) -> int:
    """Images at once."""
    return int(max(1, min(BATCH, BATCH_BYTES // prod(model.input_shape))))


def _answered(model: LoadedVersion, folder: Path, paths: Iterator[str], threads: int) -> Iterator[_Batch]:
    """Batches in the order of the paths; a few are made ahead."""
    import torch

    size = batch_size(model)
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
    found = [listed(folder, path) for path in paths]  # before reading: a later change must be noticed on resuming
    images = np.empty((len(paths), *model.input_shape), np.uint8)
    readable: list[str] = []
    faults: list[tuple[str, str]] = []
    for path in paths:
        try:
            images[len(readable)] = decode_for(model, folder / path)
            readable.append(path)
        except BadImage as fault:
            faults.append((path, str(fault)))
    images = images[: len(readable)]
    return _Batch(found, readable, images, model.answers(images), faults)


def _refusal(folder: Path, faults: list[tuple[str, str]]) -> str:
    lines = [f"{folder / path} {reason}" for path, reason in faults[:NAMED]]
    more = f" (here are {len(faults) - NAMED} more)" * (len(faults) > NAMED)
    return "\n".join(
        [*lines, f"--skip-bad leaves out unreadable images{more}; the same command with it continues from here."]
    )
