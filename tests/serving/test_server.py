"""A real server process: what it answers, what it refuses, and what it survives."""

import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recursight.data.store import open_store
from recursight.layout import Layout
from recursight.registry import register
from recursight.serving import load_champion, read_log
from recursight.tracking import connect
from tests.projects import change_params, choose
from tests.serving.server import COMMAND, Server, form, serving

pytestmark = pytest.mark.slow

LIMITS = {"max_bytes": 100_000, "max_pixels": 100_000, "max_images": 8, "poll_seconds": 0.1}


@pytest.fixture(scope="module")
def two_versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Version 1 (gru) is champion, version 2 (elman) challenges it."""
    folder = tmp_path_factory.mktemp("served") / "project"
    shutil.copytree(trained, folder)
    layout = Layout(folder)
    change_params(layout, "registry", minimum_accuracy=0.3)
    params = layout.params.read_text()
    layout.params.write_text(params + f"serve: {json.dumps(LIMITS)}\n")
    register(layout)
    choose(layout, "elman")
    register(layout)
    return layout


@pytest.fixture
def own(two_versions: Layout, tmp_path: Path) -> Layout:
    """A copy to do harm to."""
    moved = tmp_path / "project"
    shutil.copytree(two_versions.root, moved, ignore=shutil.ignore_patterns(".recursight"))
    return Layout(moved)


@pytest.fixture(scope="module")
def server(two_versions: Layout) -> Iterator[Server]:
    with serving(two_versions) as running:
        yield running


@pytest.fixture(scope="module")
def images(two_versions: Layout) -> np.ndarray:
    return np.array(open_store(two_versions.store).images[:300, 0])


def png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, "PNG")
        return file.getvalue()


def npy(array: np.ndarray, **options: bool) -> bytes:
    with io.BytesIO() as file:
        np.save(file, array, **options)
        return file.getvalue()


def expected(layout: Layout, images: np.ndarray) -> list[str]:
    model = load_champion(layout)
    return [model.classes[index] for index in model.scores(images).argmax(axis=1)]


def labels(content: dict) -> list[str]:
    for one in content["predictions"]:
        assert one["probability"] == one["probabilities"][one["class"]] == max(one["probabilities"].values())
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    return [one["class"] for one in content["predictions"]]


def test_every_way_to_send_images_gives_the_same(server, images, two_versions):
    wanted = expected(two_versions, images[:4])
    files = [(f"{number}.png", png(image)) for number, image in enumerate(images[:4])]
    bodies = [
        form(*files),
        (json.dumps({"images": images[:4].tolist()}), "application/json; charset=utf-8"),
        (json.dumps({"images": images[:4, :, :, 0].tolist()}), "application/json"),
        (npy(images[:4]), "application/x-npy"),
        (npy(images[:4, :, :, 0]), "application/x-npy"),
        (npy(np.asfortranarray(images[:4])), "application/x-npy"),
    ]
    for body, kind in bodies:
        status, content, _ = server.ask(body=body, kind=kind)
        assert status == 200, content
        assert (content["model"], content["version"]) == ("recursight", 1)
        assert labels(content) == wanted
    status, content, _ = server.ask(body=files[0][1], kind="image/png")
    assert labels(content) == wanted[:1]
    names = [one["name"] for one in server.ask(body=bodies[0][0], kind=bodies[0][1])[1]["predictions"]]
    assert names == ["0.png", "1.png", "2.png", "3.png"]


def test_photographs_are_decoded_as_prepare_does(server, images, two_versions):
    """An RGB JPEG of another size, turned by its EXIF; 16 bits; a palette; transparency."""
    large = Image.fromarray(images[0, :, :, 0]).resize((40, 24))
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = [(large.convert("RGB"), "JPEG", {"exif": turned}), (large.convert("P"), "PNG", {})]
    pictures += [(Image.fromarray(np.asarray(large).astype(np.uint16) * 257), "PNG", {})]
    pictures += [(large.convert("LA"), "PNG", {})]
    model = load_champion(two_versions)
    for picture, form_of_it, options in pictures:
        with io.BytesIO() as file:
            picture.save(file, form_of_it, **options)
            sent = file.getvalue()
        from recursight.serving import decode_for

        (wanted,) = model.scores(decode_for(model, sent)[None])
        status, content, _ = server.ask(body=sent, kind=f"image/{form_of_it.lower()}")
        assert status == 200, content
        assert list(content["predictions"][0]["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)


def test_it_says_how_it_is(server):
    assert server.ask("/health")[:2] == (200, {"status": "alive", "model": "recursight", "version": 1})
    assert server.ask("/ready")[:2] == (200, {"status": "ready", "model": "recursight", "version": 1})
    server.ask("/nowhere")
    text = server.metrics()
    assert 'recursight_requests_total{path="/health",status="200"}' in text
    assert 'recursight_requests_total{path="other",status="404"}' in text
    assert 'recursight_model_version{model="recursight"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of few bytes that would fill memory when it is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(50_000_000))) + chunk(b"IEND", b"")


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


GREY = np.zeros((8, 8), np.uint8)
PNG = png(GREY)
JSON = "application/json"
NPY = "application/x-npy"
REFUSED = {
    "no content type": (415, b"x", "", "no Content-Type"),
    "another content type": (415, b"x", "text/plain", "'text/plain' is not understood"),
    "no image": (415, *form(("a.png", b"words")), "a.png is neither PNG nor JPEG"),
    "a GIF": (415, b"GIF89a", "image/png", "neither PNG nor JPEG"),
    "PostScript": (415, *form(("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")), "neither PNG nor JPEG"),
    "half a PNG": (422, PNG[:40], "image/png", "the image"),
    "one bad of two": (422, *form(("good.png", PNG), ("bad.png", PNG[:-30])), "bad.png"),
    "an odd name": (415, *form(("<script>\x07.png", b"x")), "?script??.png is neither"),
    "an empty body": (422, b"", "image/png", "no image"),
    "an empty form": (422, *form(), "no image"),
    "a form of fields": (422, *form(fields=1), "no file"),
    "many fields": (413, *form(("a.png", PNG), fields=20), "fields"),
    "a form without boundary": (400, b"x", "multipart/form-data", "boundary"),
    "no form": (400, b"nothing of the kind", "multipart/form-data; boundary=edge", "form cannot be read"),
    "many images": (413, *form(*[("a.png", PNG)] * 9), "More than 8 images"),
    "many arrays": (413, json.dumps({"images": [GREY.tolist()] * 9}), JSON, "More than 8 images"),
    "a long npy": (413, npy(np.zeros((9, 8, 8), np.uint8)), NPY, "More than 8 images"),
    "a bomb": (422, lambda: bomb(), "image/png", "decompression bomb"),
    "a large image": (413, lambda: bomb(400, 400), "image/png", "100,000 pixels together"),
    "many pixels": (413, *form(*[("a.png", png(np.zeros((250, 200), np.uint8)))] * 3), "pixels together"),
    "a long body": (413, b"x" * 100_001, "image/png", "100,000 bytes"),
    "broken JSON": (400, b'{"images": [', JSON, "not valid JSON"),
    "deep JSON": (400, b"[" * 50_000, JSON, "not valid JSON"),
    "long numbers": (400, b'{"images": [[[' + b"9" * 5000 + b"]]]}", JSON, "not valid JSON"),
    "other JSON": (422, b"[1, 2]", JSON, '"images"'),
    "no list": (422, b'{"images": 3}', JSON, "list of images"),
    "no images": (422, b'{"images": []}', JSON, "no image"),
    "ragged": (422, b'{"images": [[[1, 2], [3]]]}', JSON, "image 1 is ragged"),
    "fractions": (422, b'{"images": [[[1.5]]]}', JSON, "integers"),
    "large values": (422, b'{"images": [[[256]]]}', JSON, "integers from 0 to 255"),
    "words": (422, b'{"images": ["cat"]}', JSON, "integers"),
    "truth": (422, b'{"images": [[[true]]]}', JSON, "integers"),
    "huge values": (422, b'{"images": [[[99999999999999999999999]]]}', JSON, "integers"),
    "one number": (422, b'{"images": [3]}', JSON, "a number"),
    "four channels": (422, json.dumps({"images": np.zeros((1, 8, 8, 4), int).tolist()}), JSON, "8 × 8 × 4"),
    "nothing in it": (422, b'{"images": [[[]]]}', JSON, "integers|height"),
    "no npy": (400, b"x", NPY, "no .npy file"),
    "half an npy": (400, npy(np.zeros((2, 8, 8), np.uint8))[:-5], NPY, "promises 128 bytes, and 123"),
    "floats": (422, npy(np.zeros((2, 8, 8))), NPY, "must be uint8; it is float64"),
    "a pickle": (422, npy(np.array([Evil()], dtype=object), allow_pickle=True), NPY, "it is object"),
    "a vast npy": (400, b"", NPY, "promises"),
    "a flat npy": (422, npy(np.zeros(64, np.uint8)), NPY, "axes"),
}


def vast() -> bytes:
    """An npy file whose header wants a terabyte."""
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**3, 10**3)}
        )
        return file.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_gets_one_sentence(server, case, two_versions):
    status, body, kind, words = REFUSED[case]
    content = vast() if case == "a vast npy" else body() if callable(body) else body
    got, answer, _ = server.ask(body=content, kind=kind)
    assert (got, set(answer)) == (status, {"error", "model", "version"}), answer
    assert any(word in answer["error"] for word in words.split("|")), answer
    assert answer["error"].endswith((".", "?"))
    assert "\n" not in answer["error"]
    assert "Traceback" not in answer["error"]
    assert not (two_versions.root / "unpickled").exists()


def test_wrong_paths_methods_and_hosts_get_one_sentence(server):
    assert server.ask("/nowhere")[0] == 404
    status, _, answer = server.ask("/predict")
    assert (status, answer.headers["Allow"]) == (405, "POST")
    assert server.ask("/health", b"x")[0] == 405
    assert server.ask(body=PNG, kind="image/png", Host="evil.example.org")[0] == 403
    assert server.ask(body=PNG, kind="image/png", Origin="https://evil.example.org")[0] == 403
    assert server.ask(body=PNG, kind="image/png", Origin="http://localhost:3000")[0] == 200
    assert server.ask("/health", Host="10.0.0.7:8000")[0] == 200, "probes come under any name"


def test_a_body_that_never_ends_is_cut_off(server):
    connection = socket.create_connection(server.host.split(":"), timeout=60)
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
    connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
    answer = b""
    try:
        for _ in range(40):
            connection.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
        answer = connection.recv(1000)
    except OSError:
        answer = answer or b"HTTP/1.1 413 (cut off)"
    connection.close()
    assert b" 413 " in answer
    assert server.ask("/ready")[0] == 200


class Callers:
    """Threads that ask without a pause, and keep what they got."""

    def __init__(self, server: Server, images: np.ndarray, threads: int = 6) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: list[int] = []
        self.faults: list[Exception] = []
        self._server = server
        self._bodies = [png(image) for image in images[:20]]
        self._numbers = count()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._end.is_set():
            try:
                body = self._bodies[next(self._numbers) % len(self._bodies)]
                status, content, _ = self._server.ask(body=body, kind="image/png")
                self.statuses[status] += 1
                self.versions.append(content["version"])
            except Exception as fault:
                self.faults.append(fault)


def network_of(layout: Layout, version: int) -> Path:
    source = connect(layout).get_model_version("recursight", str(version)).source
    return (
        layout.root / "mlartifacts" / "models" / source.rpartition("/")[2] / "artifacts" / "artifacts" / "network.pt2"
    )


def appoint(layout: Layout, version: int) -> None:
    connect(layout).set_registered_model_alias("recursight", "champion", str(version))


def test_a_new_champion_takes_over_without_a_dropped_request(two_versions, images):
    """A broken one does not; it is tried again, and serves once it is whole. MLflow may be gone meanwhile."""
    broken = network_of(two_versions, 2)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    with serving(two_versions) as server, Callers(server, images) as callers:
        appoint(two_versions, 2)
        server.wait_for_log("the new champion does not serve, version 1 serves on: version 2 cannot be loaded")
        assert server.ask("/ready")[1]["version"] == 1
        assert 'recursight_model_loads_total{outcome="failed"}' in server.metrics()
        broken.write_bytes(whole)
        server.wait_for_version(2)
        asked = len(callers.versions)
        while len(callers.versions) < asked + 50:
            assert not callers.faults
            callers._end.wait(0.01)
        appoint(two_versions, 1)
        server.wait_for_version(1)
    assert callers.faults == []
    assert set(callers.statuses) == {200}
    assert set(callers.versions) == {1, 2}
    assert "Traceback" not in server.log.read_text()


def test_it_serves_on_without_mlflow(own, images):
    with serving(own) as server:
        database = own.root / "mlflow.db"
        database.write_bytes(b"no database")
        shutil.rmtree(own.root / "mlartifacts")
        server.wait_for_log("MLflow does not answer, version 1 serves on")
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200
        assert "recursight_registry_answers 0.0" in server.metrics()
        assert server.log.read_text().count("MLflow does not answer") == 1


def test_sigterm_lets_requests_end_and_the_log_has_them_all(own, images):
    with serving(own) as server:
        with Callers(server, images) as callers:
            while len(callers.versions) < 50:
                assert not callers.faults
                callers._end.wait(0.01)
            callers._end.set()
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    assert set(callers.statuses) == {200}
    assert all(isinstance(fault, ConnectionError) for fault in callers.faults), "no answer was cut off half way"
    log = read_log(own.predictions)
    assert len(log) == callers.statuses[200]
    assert set(log["source"]) == {"serve"}
    assert "Traceback" not in server.log.read_text()


def test_a_killed_server_leaves_a_readable_log(own, images):
    with serving(own) as server:
        for _ in range(3):
            server.ask(body=png(images[0]), kind="image/png")
        while len(read_log(own.predictions)) < 3:
            server.ask(body=png(images[0]), kind="image/png")
        server.process.kill()
        server.process.wait()
    assert len(read_log(own.predictions)) >= 3


def test_too_many_requests_at_once_are_turned_away(own, images):
    own.params.write_text(own.params.read_text().replace('"max_images"', '"max_waiting": 1, "max_images"'))
    with serving(own) as server:
        slow = socket.create_connection(server.host.split(":"), timeout=60)
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
        )
        while server.ask("/ready")[0] == 200:
            pass
        status, content, answer = server.ask(body=png(images[0]), kind="image/png")
        assert (status, answer.headers["Retry-After"]) == (503, "1")
        assert "Too many requests" in content["error"]
        slow.close()
        while server.ask("/ready")[0] != 200:
            pass
        assert server.ask(body=png(images[0]), kind="image/png")[0] == 200


def test_what_stands_in_the_way_of_a_start_is_said(own):
    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], cwd=own.root, capture_output=True, text=True, env=dict(os.environ), check=False
        )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = start("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "--allow-host" in start("--host", "0.0.0.0").stderr
    connect(own).delete_registered_model_alias("recursight", "champion")
    assert "has no champion yet" in start().stderr
