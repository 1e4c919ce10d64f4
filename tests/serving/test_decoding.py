"""Request bodies that take long, much memory, or the decoder with them."""

import asyncio
import io
import json
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from recursight.params import Serve
from recursight.registry import register
from recursight.serving import decoding
from recursight.serving.uploads import RequestError, images_in
from tests.platforms import until
from tests.projects import change_params
from tests.serving.server import png, serving


def slow_jpeg(side: int = 7000, scans: int = 25_000) -> bytes:
    """A small progressive JPEG, of which each further scan, of ten bytes, visits all pixels."""
    with io.BytesIO() as file:
        Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
        content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last : last + 10] * scans + content[-2:]


@pytest.mark.parametrize(
    "images",
    [[["a" * 200_000] + [""] * 100_000], [[{"": 0}] * 30_000], [[[]] * 100_000], [[[[[[0]]]]] * 10_000]],
    ids=["wide words", "objects", "empty rows", "axes"],
)
def test_a_small_json_takes_little_memory(images) -> None:
    """As an array of NumPy's, the first would have 80 GB."""
    body = json.dumps({"images": images}, separators=(",", ":")).encode()
    tracemalloc.start()
    with pytest.raises(RequestError) as caught:
        images_in("application/json", body, (8, 8, 1), "pad", Serve())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 422
    assert peak < decoding.BYTES_PER_BODY_BYTE * len(body) + 1_000_000


def test_a_process_ends_in_time_even_if_it_holds_the_lock_of_the_interpreter() -> None:
    code = "from recursight.processes import end_after; import re; end_after(1); re.match('(a+)+$', 'a' * 64 + 'b')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGALRM


def test_decoders_that_are_busy_for_a_moment_are_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STUCK_SECONDS", 0.2)
    body = slow_jpeg(scans=500)

    async def load() -> None:
        decoders = decoding.Decoders(Serve(max_pixels=50_000_000))
        try:
            await asyncio.sleep(0.4)  # idle for longer than what counts as stuck
            busy = [
                asyncio.create_task(decoders.images_in("image/jpeg", body, (8, 8, 1), "pad"))
                for _ in range(min(psutil.cpu_count(), decoding.MOST_PROCESSES))
            ]
            await asyncio.sleep(0)  # each has taken a decoder
            assert not decoders.stuck
            await asyncio.sleep(0.4)
            assert decoders.stuck
            busy[0].cancel()
            await asyncio.sleep(0)
            assert decoders.stuck, "the decoder of a cancelled request is still at work"
            results = await asyncio.gather(*busy, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            await asyncio.to_thread(until, lambda: not decoders.stuck)
        finally:
            decoders.close()

    asyncio.run(load())


@pytest.mark.slow
def test_images_that_take_minutes_to_decode_stop_nobody(own, images) -> None:
    change_params(own, "serve", max_bytes=16_000_000, max_pixels=50_000_000)
    body, kind = slow_jpeg(), "image/jpeg"
    with serving(own) as server, ThreadPoolExecutor(12) as callers:
        count = len(psutil.Process(server.process.pid).children())
        assert count == min(psutil.cpu_count(), decoding.MOST_PROCESSES)
        slow = [callers.submit(server.ask, "/predict", body, kind) for _ in range(count)]
        until(lambda: server.ask("/ready")[0] == 503)  # while they decode, everything else is answered
        assert server.ask("/health")[0] == 200
        assert {answer.result()[0] for answer in slow} == {413}
        assert "5 seconds of processor time" in slow[0].result()[1]["error"]
        until(lambda: server.ask("/ready")[0] == 200)
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200
        decoders = psutil.Process(server.process.pid).children()
        for _ in range(4 * count):
            callers.submit(server.ask, "/predict", body, kind)
        until(lambda: server.ask("/ready")[0] == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=120) == 0, "the process ended in good order, before it was ended"
        assert not psutil.wait_procs(decoders, timeout=60)[1]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_decoder_that_dies_is_replaced(own, images) -> None:
    with serving(own) as server:
        decoders = psutil.Process(server.process.pid).children()
        for decoder in decoders:
            decoder.kill()
        until(lambda: {one.status() for one in decoders} == {psutil.STATUS_ZOMBIE})  # the server has not noticed yet
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200


@pytest.mark.slow
def test_a_name_outside_latin_1_is_served(own, images) -> None:
    change_params(own, "registry", model_name="数字", minimums={"accuracy": 0.0, "worst_class_recall": 0.0})
    register(own)
    with serving(own) as server:
        status, content, _ = server.ask(body=png(images[0]), kind="image/png")
        assert (status, content["model"]) == (200, "数字")
        assert server.ask("/nowhere")[0] == 404
