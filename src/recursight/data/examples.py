"""One pass over a source: decodes every image, in order and on all cores, and records every error.

Import and prepare both validate with this pass. Its memory is bounded: a few chunks of a few megabytes.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from recursight.data.findings import Example, Findings, Shape
from recursight.data.images import BadImage, decode, read_bytes, without_warnings
from recursight.data.records import Fault, Record

Progress = Callable[[int, int], None]
"""Called after each chunk with the number of finished records and their total."""

Decode = Callable[[bytes | Path | np.ndarray], np.ndarray]

_CHUNK_RECORDS = 128
_CHUNK_BYTES = 4_000_000


def examples(
    findings: Findings,
    decode: Decode = decode,
    keep: Callable[[Shape], bool] = lambda shape: False,
    progress: Progress | None = None,
    with_bytes: bool = False,
) -> Iterator[list[Example]]:
    """Decodes a whole source in order; images that cannot be decoded are recorded in `findings`.

    Args:
        findings: of the source to read; updated during the pass.
        decode: returns the pixels (H, W, C) of one image; raises BadImage if it cannot.
        keep: whether to keep the pixels of an image with the given shape.
        progress: receives the progress.
        with_bytes: return the encoded bytes in the records instead of paths.
    """
    done = 0
    with without_warnings():
        for outcomes in _outcomes(findings.source.read(), decode, keep, with_bytes):
            good = findings.add(outcomes)
            if good:
                yield good
            done += len(outcomes)
            if progress:
                progress(done, findings.source.count)


def _outcomes(
    records: Iterator[Record | Fault], decode: Decode, keep: Callable[[Shape], bool], with_bytes: bool
) -> Iterator[list[Example | Fault]]:
    """Decodes a few chunks in parallel; the first ones are short, to find out how large the images are."""

    def work(chunk: list[Record | Fault]) -> list[Example | Fault]:
        return [item if isinstance(item, Fault) else _example(item, decode, keep, with_bytes) for item in chunk]

    threads = cores()
    pending: deque[Future[list[Example | Fault]]] = deque()
    length, largest = 1, 1
    with ThreadPoolExecutor(threads) as pool:
        while True:
            while len(pending) <= threads and (chunk := _chunk(records, length)):
                pending.append(pool.submit(work, chunk))
            if not pending:
                return
            outcomes = pending.popleft().result()
            for item in outcomes:
                if isinstance(item, Example) and item.pixels is not None:
                    largest = max(largest, item.pixels.nbytes)
            length = max(1, min(2 * length, _CHUNK_RECORDS, _CHUNK_BYTES // largest))
            yield outcomes


def _chunk(records: Iterator[Record | Fault], length: int) -> list[Record | Fault]:
    """The next records: at most `length`, and about a few megabytes of encoded images."""
    chunk: list[Record | Fault] = []
    weight = 0
    for item in records:
        chunk.append(item)
        if isinstance(item, Record):
            weight += _encoded_bytes(item.image)
        if len(chunk) >= length or weight >= _CHUNK_BYTES:
            break
    return chunk


def _encoded_bytes(image: bytes | Path | np.ndarray) -> int:
    if isinstance(image, Path):
        try:
            return image.stat().st_size
        except OSError:
            return 0  # reported when it is read
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def _example(record: Record, decode: Decode, keep: Callable[[Shape], bool], with_bytes: bool) -> Example | Fault:
    try:
        if with_bytes and isinstance(record.image, Path):
            record = record._replace(image=read_bytes(record.image))
        pixels = np.ascontiguousarray(decode(record.image))
    except BadImage as bad:
        return Fault(record.id, str(bad))
    height, width, channels = pixels.shape
    shape = (height, width, channels)
    sha256 = hashlib.sha256(pixels.data).digest()
    return Example(record, shape, sha256, pixels if keep(shape) else None)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
