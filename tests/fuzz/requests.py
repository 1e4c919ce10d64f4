"""Malformed requests to a running server: `python -m tests.fuzz.requests SEED SECONDS FOLDER`.

No answer may be a server error, and `/health` must answer at once after every one.
"""

import io
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import numpy as np

from recursight.data.prepare import prepare
from recursight.layout import Layout
from recursight.registry import register
from tests.fuzz.faults import Faults
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import corpus, words_of_json
from tests.projects import train_small
from tests.serving.server import Server, form, png, serving

HEALTH_SECONDS = 10.0
ANSWER_SECONDS = 50.0


def samples() -> dict[str, list[bytes]]:
    """Valid bodies by content type; under "" whole requests."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    encoded = [png(image) for image in images]
    body, kind = form(("a.png", encoded[0]), ("b.png", encoded[1]), fields=1)
    with io.BytesIO() as file:
        np.save(file, images)
        array = file.getvalue()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(encoded[0])}\r\n"
    )
    return {
        "image/png": encoded,
        "application/json": [json.dumps({"images": images.tolist()}).encode()],
        "application/x-npy": [array],
        kind: [body],
        "": [head.encode() + b"Connection: close\r\n\r\n" + encoded[0]],
    }


WORDS = {
    "application/json": (*words_of_json(), b'"' + b"a" * 20_000 + b'", ""', b"[" * 500),
    "application/x-npy": (b"'|b1'", b"'<f8'", b"'|O'", b"(-1, 8, 8)", b"(10000000000000000000000000000000, 8)"),
    "": (
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Expect: 100-continue\r\n",
        b"HEAD",
        b"\r\n\r\n",
    ),
}
WORDS["multipart/form-data; boundary=edge"] = (
    b"--edge--",
    b"--edge\r\n",
    b"\r\n\r\n",
    b'filename="',
    b"base64",
    b"\x00",
)


def main(seed: int, seconds: float, folder: Path) -> None:
    with serving(_project(folder / "project")) as server:
        known = samples()
        former = [path.read_bytes() for path in corpus("requests")]
        began, count = time.monotonic(), 0
        for kind, content in [*_undisturbed(known), *_former(former)]:
            _ask(server, kind, content, folder)
        faults = Faults("requests", folder)
        while time.monotonic() - began < seconds:
            random = Random(f"{seed} {count}")
            kind = random.choice(sorted(known))
            try:
                _ask(server, kind, mutated(random, known[kind], WORDS.get(kind, ())), folder)
            except (AssertionError, OSError) as fault:
                faults.keep(f"{kind}: {type(fault).__name__} {fault}", (folder / "input").read_bytes())
            count += 1
            (folder / "count").write_text(str(count))
        log = server.log.read_text()
        assert "Traceback" not in log, log[-3000:]


def _undisturbed(known: dict[str, list[bytes]]) -> Iterator[tuple[str, bytes]]:
    for kind, bodies in known.items():
        yield from ((kind, body) for body in bodies)


def _former(contents: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """A former failure is kept as its content type, an empty line, and its body."""
    for content in contents:
        kind, _, body = content.partition(b"\n\n")
        yield kind.decode(), body


def _ask(server: Server, kind: str, body: bytes, folder: Path) -> None:
    (folder / "input").write_bytes(kind.encode() + b"\n\n" + body)
    status = _post(server, kind, body) if kind else _send(server, body)
    assert status is None or status < 500, f"status {status}"
    began = time.monotonic()
    with closing(HTTPConnection(server.host, timeout=HEALTH_SECONDS)) as connection:
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
    assert time.monotonic() - began < HEALTH_SECONDS


def _post(server: Server, kind: str, body: bytes) -> int:
    with closing(HTTPConnection(server.host, timeout=ANSWER_SECONDS)) as connection:
        connection.request("POST", "/predict", body, {"Content-Type": kind})
        return connection.getresponse().status


def _send(server: Server, request: bytes) -> int | None:
    """The status that a raw request gets; None if the server closes the connection, as it may."""
    host, _, port = server.host.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            first = connection.recv(64).split()
        except (ConnectionError, TimeoutError):
            return None
    return int(first[1]) if len(first) > 1 and first[1].isdigit() else None


def _project(root: Path) -> Layout:
    from sklearn.datasets import load_digits

    from recursight.data.readers import idx

    digits = load_digits()
    source = root.with_name("digits")
    source.mkdir(parents=True)
    idx.write(source / "train-images-idx3-ubyte", (digits.images * 15).astype(np.uint8))
    idx.write(source / "train-labels-idx1-ubyte", digits.target.astype(np.uint8))
    prepare(source, root.with_name("store"), validation=0.2, test=0.2)
    train_small(root, root.with_name("store"))
    shutil.rmtree(source)
    register(Layout(root))
    return Layout(root)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
