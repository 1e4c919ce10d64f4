"""Decodes request bodies in separate processes, which the operating system ends at a limit of processor time or memory.

Decoders of images are written in C: no thread can be stopped inside one, and some of them hold the interpreter's lock,
so that the server could not answer anything meanwhile. If a decoder crashes or exceeds a limit, the request is refused
and a new process is started.
"""

import asyncio
import json
import logging
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

import numpy as np

from recursight.data.images import Resize
from recursight.params import Serve
from recursight.processes import CPU_EXCEEDED, end_after_cpu
from recursight.serving.uploads import RequestError, images_in

MOST_PROCESSES = 4
CPU_SECONDS = 5  # for one body; an image of 50 megapixels takes about one
WAIT_SECONDS = 10  # for a decoder, before a request is refused
STUCK_SECONDS = 1  # without a free decoder, after which the server reports that it is busy
BASE_BYTES = 500_000_000  # interpreter and libraries
BYTES_PER_PIXEL = 32  # Pillow's and our copies of an RGBA image
BYTES_PER_BODY_BYTE = 40  # of JSON: `{"":0},` becomes a dictionary of 232 bytes

_SIZES = struct.Struct(">QQ")
_COMMAND = [sys.executable, "-P", "-c", "from recursight.serving.decoding import main; main()"]
_log = logging.getLogger("recursight.serving")

Message = tuple[dict[str, Any], bytes]


class Decoders:
    """The processes, each of which decodes one body at a time.

    Args:
        limits: of a request.
    """

    def __init__(self, limits: Serve) -> None:
        count = min(os.cpu_count() or 1, MOST_PROCESSES)
        self._all = [_Decoder(limits) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self._idle: asyncio.LifoQueue[_Decoder] = asyncio.LifoQueue()
        self._all_busy_since = time.monotonic()
        for decoder in self._all:
            self._idle.put_nowait(decoder)

    @property
    def stuck(self) -> bool:
        """Whether all have been busy for some time."""
        return self._idle.empty() and time.monotonic() - self._all_busy_since > STUCK_SECONDS

    async def images_in(
        self, content_type: str, body: bytes, shape: tuple[int, int, int], resize: Resize
    ) -> tuple[np.ndarray, list[str]]:
        """As `uploads.images_in`.

        Raises:
            RequestError: also if decoding takes too long or too much memory, or no decoder becomes free.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                decoder = await self._idle.get()
        except TimeoutError:
            raise RequestError(503, "All decoders are busy: try again in a second.") from None
        if self._idle.empty():
            self._all_busy_since = time.monotonic()
        request = {"content_type": content_type, "shape": shape, "resize": resize}
        asked = asyncio.get_running_loop().run_in_executor(self._threads, decoder.ask, request, body)
        asked.add_done_callback(lambda _: self._idle.put_nowait(decoder))
        about, pixels = await asyncio.shield(asked)  # the decoder goes on if this request is cancelled
        if "status" in about:
            raise RequestError(about["status"], about["sentence"])
        return np.frombuffer(pixels, np.uint8).reshape(-1, *shape), about["names"]

    def close(self) -> None:
        """Ends the processes, also those that are decoding."""
        for decoder in self._all:
            decoder.close()
        self._threads.shutdown()


class _Decoder:
    """One process; it is replaced after it has ended."""

    def __init__(self, limits: Serve) -> None:
        self._limits = limits
        self._closed = False
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # A separate session: Ctrl-C at the terminal does not reach it. It ends when its stdin does.
        return subprocess.Popen(
            [*_COMMAND, self._limits.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, request: Mapping[str, Any], body: bytes) -> Message:
        """What `answer` returns for a request.

        Raises:
            RequestError: if the process ends over it.
        """
        if self._process.poll() is not None:
            self._process = self._start()
        assert self._process.stdin
        assert self._process.stdout
        with suppress(OSError, EOFError):
            _write(self._process.stdin, request, body)
            return _read(self._process.stdout)
        status = self._end()
        if self._closed:
            raise RequestError(503, "The server is stopping.")
        self._process = self._start()
        if status == CPU_EXCEEDED:
            _log.warning("a body was not decoded within %d seconds of processor time", CPU_SECONDS)
            raise RequestError(413, f"Decoding takes more than {CPU_SECONDS} seconds of processor time.")
        _log.error("a decoder ended with status %d", status)
        raise RequestError(422, "The body cannot be decoded: its decoder crashed.")

    def close(self) -> None:
        self._closed = True
        self._end()

    def _end(self) -> int:
        """Status of the process, which may have ended already."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # its reader is gone
                pipe and pipe.close()
        return self._process.wait()


def main() -> None:
    """The process: answers requests from stdin to stdout until stdin ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not come between the answers
    logging.disable()  # the sender gets every fault in its answer
    warnings.simplefilter("ignore")
    limits = Serve.model_validate_json(sys.argv[1])
    memory = BASE_BYTES + BYTES_PER_PIXEL * limits.max_pixels + BYTES_PER_BODY_BYTE * limits.max_bytes
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with suppress(EOFError, BrokenPipeError):
        while True:
            request, body = _read(requests)
            end_after_cpu(CPU_SECONDS)
            about, pixels = answer(request, body, limits)
            end_after_cpu(0)
            _write(answers, about, pixels)


def answer(request: Mapping[str, Any], body: bytes, limits: Serve) -> Message:
    """Names and pixels of a body's images, or status and sentence of a refusal."""
    try:
        images, names = images_in(request["content_type"], body, request["shape"], request["resize"], limits)
        return {"names": names}, images.tobytes()
    except RequestError as fault:
        return {"status": fault.status, "sentence": fault.sentence}, b""
    except MemoryError:
        return {"status": 413, "sentence": "Decoding takes too much memory: send fewer or smaller images."}, b""
    except Exception as fault:  # parsers raise almost any exception on malformed bytes
        return {"status": 400, "sentence": f"The body cannot be read ({type(fault).__name__})."}, b""


def _write(file: IO[bytes], about: Mapping[str, Any], content: bytes) -> None:
    head = json.dumps(about).encode()
    file.write(_SIZES.pack(len(head), len(content)) + head)
    file.write(content)
    file.flush()


def _read(file: IO[bytes]) -> Message:
    head, content = _SIZES.unpack(_read_exactly(file, _SIZES.size))
    return json.loads(_read_exactly(file, head)), _read_exactly(file, content)


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content
