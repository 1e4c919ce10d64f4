"""A real server process: what it answers, and what it refuses."""

import io
import json
import os
import socket
import struct
import zlib
from http.client import HTTPConnection

import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI
from PIL import Image

from recursight.layout import Layout
from recursight.serving.champion import load_champion
from recursight.serving.uploads import READERS
from tests.serving.server import form, png

pytestmark = pytest.mark.slow


def npy(array: np.ndarray, **options: bool) -> bytes:
    with io.BytesIO() as file:
        np.save(file, array, **options)
        return file.getvalue()


def expected(layout: Layout, images: np.ndarray) -> list[str]:
    model = load_champion(layout)
    return [model.vocabulary[index] for index in model.answers(images).argmax(axis=1)]


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
        from recursight.serving.champion import decode_for

        (wanted,) = model.answers(decode_for(model, sent)[None])
        status, content, _ = server.ask(body=sent, kind=f"image/{form_of_it.lower()}")
        assert status == 200, content
        assert list(content["predictions"][0]["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)


def test_it_says_how_it_is(server):
    assert server.ask("/health")[:2] == (200, {"status": "alive", "model": "recursight", "version": 1})
    assert server.ask("/ready")[:2] == (200, {"status": "ready", "model": "recursight", "version": 1})
    connection = HTTPConnection(server.host, timeout=60)
    for path in ("/health", "/ready"):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-Model-Version"], answer.read()) == (200, "1", b"")
    connection.close()
    server.ask("/nowhere")
    text = server.metrics()
    assert 'recursight_requests_total{path="/health",status="200"}' in text
    assert 'recursight_requests_total{path="other",status="404"}' in text
    assert 'recursight_model_version{model="recursight"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_description_for_clients_is_openapi_and_names_every_body_and_answer(server):
    connection = HTTPConnection(server.host, timeout=60)
    connection.request("GET", "/openapi.json")
    described = json.loads(connection.getresponse().read())
    connection.close()
    OpenAPI.model_validate(described)
    assert set(described["paths"]) == {"/predict", "/health", "/ready", "/metrics"}
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == set(READERS)
    form_of_files = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form_of_files["properties"]["file"]["items"] == {"format": "binary", "type": "string"}
    answer = predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert set(described["components"]["schemas"][answer.rpartition("/")[2]]["properties"]) == {
        "model", "version", "predictions",
    }  # fmt: skip


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
BASE64 = 'Content-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Transfer-Encoding: base64'


def part(headers: str) -> bytes:
    """A form of one part."""
    return f"--edge\r\n{headers}\r\n\r\nabc=d!e\r\n--edge--\r\n".encode()


def npy_header(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


REFUSED = {
    "no content type": (415, b"x", "", "no Content-Type"),
    "another content type": (415, b"x", "text/plain", "'text/plain' is not accepted"),
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
    "long words": (422, json.dumps({"images": [["a" * 20_000] + [""] * 9_999]}), JSON, "integers"),
    "too many axes": (422, b'{"images": [[[[[0]]]]]}', JSON, "more than three axes"),
    "an object": (422, b'{"images": [[[{}]]]}', JSON, "integers"),
    "a form cut short": (400, form(("a.png", PNG))[0][:-10], form()[1], "ends before its closing boundary"),
    "a form of half a file": (400, form(("a.png", PNG), ("b.png", PNG))[0][:-30], form()[1], "closing boundary"),
    "a part without a header": (400, b"--edge\r\n\r\nx\r\n--edge--\r\n", form()[1], "form cannot be read"),
    "a part without a name": (400, part("Content-Disposition: form-data"), form()[1], "form cannot be read"),
    "bad base64": (400, part(BASE64), form()[1], "form cannot be read"),
    "a long boundary": (400, form()[0], f"multipart/form-data; boundary={'x' * 300}", "form cannot be read"),
    "negative axes": (422, npy_header("(-1, -8, 8)"), NPY, "axes"),
    "true axes": (422, npy_header("(True, 8, 8)") + bytes(64), NPY, "axes"),
    "countless columns": (422, npy_header("(1, 0, 1" + "0" * 30 + ")"), NPY, "axes"),
    "more than a disk": (400, npy_header("(1, 8, 1" + "0" * 30 + ")"), NPY, "promises"),
    "a name for a shape": (400, npy_header("shape"), NPY, "no .npy file"),
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
    assert server.log.read_text() == ""


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
