"""From the body of a request to the images that the model takes. Nothing here is unpickled.

Only PNG and JPEG are decoded, so that few parsers read untrusted bytes.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recursight.data.images import BadImage, Resize, decode, pixels_of
from recursight.params import Serve

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
MOST_FIELDS = 16  # of a form, beside the files
LONGEST_NAME = 100
_NPY_HEADER = 10_000  # bytes


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP.
        sentence: for the client.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True)
class Upload:
    """One image as it was sent: its name, and encoded bytes or uint8 pixels H, W, C."""

    name: str
    content: bytes | np.ndarray


def images_in(
    content_type: str, body: bytes, shape: tuple[int, int, int], resize: Resize, limits: Serve
) -> tuple[np.ndarray, list[str]]:
    """Decodes the images of a request: uint8 (N, H, W, C), as the model takes them, and their names.

    Args:
        content_type: of the body.
        body: of the request.
        shape: H, W, C that the model takes.
        resize: how images of another size are resized.
        limits: of a request.

    Raises:
        RequestError: if there is anything wrong with any of them.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in READERS:
        given = f"The Content-Type {kind!r} is not accepted" if kind else "The request has no Content-Type"
        raise RequestError(415, f"{given}; send one of {', '.join(READERS)}.")
    uploads = READERS[kind](content_type, body, limits)
    if not uploads:
        raise RequestError(422, "There is no image in this request.")
    _require_few(len(uploads), limits)
    pixels = 0
    for upload in uploads:
        pixels += _pixels(upload)
        if pixels > limits.max_pixels:
            raise RequestError(
                413, f"The images have more than {limits.max_pixels:,} pixels together (serve.max_pixels)."
            )
    return np.stack([_decoded(upload, shape, resize) for upload in uploads]), [upload.name for upload in uploads]


def _require_few(count: int, limits: Serve) -> None:
    if count > limits.max_images:
        raise RequestError(
            413, f"More than {limits.max_images:,} images in one request (serve.max_images): send fewer."
        )


def _pixels(upload: Upload) -> int:
    if isinstance(upload.content, np.ndarray):
        return prod(upload.content.shape[:2])
    if not upload.content.startswith(SIGNATURES):
        raise RequestError(415, f"{upload.name} is neither PNG nor JPEG.")
    try:
        return pixels_of(upload.content)
    except BadImage as fault:
        raise RequestError(422, f"{upload.name} {fault}") from None


def decode_to(image: bytes | Path | np.ndarray, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    """Decodes an image, or fits uint8 pixels, to H, W, C as `prepare` does.

    Raises:
        BadImage: if it cannot be decoded.
    """
    height, width, depth = shape
    channels: Literal["grey", "rgb"] = "grey" if depth == 1 else "rgb"
    return decode(image, (height, width), resize, channels)


def _decoded(upload: Upload, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    try:
        return decode_to(upload.content, shape, resize)
    except BadImage as fault:
        raise RequestError(422, f"{upload.name} {fault}") from None


def _single(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    return [Upload("the image", body)] if body else []


def _form(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    """The files of a form; the names of their fields do not matter."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import FormParser, parse_options_header

    uploads: list[Upload] = []
    fields, complete = 0, False

    def keep(file: Any) -> None:
        _require_few(len(uploads) + 1, limits)
        file.file_object.seek(0)
        name = _printable((file.file_name or b"").decode("utf-8", "replace")) or f"image {len(uploads) + 1}"
        uploads.append(Upload(name, file.file_object.read()))

    def count(field: Any) -> None:
        nonlocal fields
        fields += 1
        if fields > MOST_FIELDS:
            raise RequestError(413, f"The form has more than {MOST_FIELDS} fields that are no files.")

    def end() -> None:
        nonlocal complete
        complete = True

    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise FormParserError("its Content-Type names no boundary")
        in_memory = {"MAX_MEMORY_FILE_SIZE": limits.max_bytes + 1}
        parser = FormParser("multipart/form-data", count, keep, end, boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
        if not complete:
            raise FormParserError("it ends before its closing boundary")
    except FormParserError as error:
        raise RequestError(400, f"The form cannot be read: {_printable(str(error))}.") from None
    if fields and not uploads:
        raise RequestError(422, "The form has fields but no file; with curl, write -F file=@image.png.")
    return uploads


def _json(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    """{"images": [image, ...]}, each a nested list of H × W or H × W × C integers from 0 to 255."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise RequestError(422, 'The body must be {"images": [...]}, a list of images.')
    _require_few(len(images), limits)
    return [Upload(f"image {number}", _array(number, image)) for number, image in enumerate(images, start=1)]


def _array(number: int, image: object) -> np.ndarray:
    """An image of nested lists. Its values are checked before NumPy reads them, which would convert almost anything."""
    name = f"image {number}"
    shape: list[int] = []
    values: list[Any] = [image]
    while values and any(type(value) is list for value in values):
        if len(shape) == 3:
            raise RequestError(422, f"{name} has more than three axes.")
        if len({len(value) if type(value) is list else None for value in values}) > 1:
            raise RequestError(422, f"{name} is ragged: its rows must be equally long.")
        shape.append(len(values[0]))
        values = list(chain.from_iterable(values))
    if set(map(type, values)) - {int} or min(values, default=0) < 0 or max(values, default=0) > 255:
        raise RequestError(422, f"{name} must hold integers from 0 to 255.")
    return _shaped(name, np.frombuffer(bytes(values), np.uint8).reshape(shape))


def _shaped(name: str, pixels: np.ndarray) -> np.ndarray:
    """H, W, C; a grey image may lack its last axis."""
    shaped = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if shaped.ndim != 3 or shaped.shape[2] not in (1, 3) or not shaped.size:
        size = " × ".join(map(str, pixels.shape)) or "a number"
        raise RequestError(422, f"{name} is {size}; it must be height × width, for grey, or height × width × 3.")
    return shaped


def _npy(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    """One array, N × H × W or N × H × W × C."""
    shape, fortran, start = _npy_header(body)
    if len(shape) not in (3, 4) or any(type(length) is not int or length < 1 for length in shape):
        raise RequestError(422, "The array must have the axes N × H × W, for grey, or N × H × W × C.")
    if prod(shape) != len(body) - start:
        raise RequestError(400, f"The array's header promises {prod(shape):,} bytes, and {len(body) - start:,} follow.")
    _require_few(shape[0], limits)
    array = np.frombuffer(body, np.uint8, offset=start).reshape(shape, order="F" if fortran else "C")
    return [Upload(f"image {number}", _shaped(f"image {number}", each)) for number, each in enumerate(array, start=1)]


def _npy_header(body: bytes) -> tuple[tuple[int, ...], bool, int]:
    """Shape, whether the first axis varies fastest, and where the values begin; no value is touched."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_NPY_HEADER)
    except Exception:  # NumPy's parser raises several kinds
        raise RequestError(400, "The body is no .npy file; make it with numpy.save.") from None
    if dtype != np.uint8:
        raise RequestError(422, f"The array must be uint8; it is {dtype}.")
    return shape, fortran, file.tell()


def _printable(text: str) -> str:
    """A file's name, or a parser's message, as it may stand in a sentence."""
    return re.sub(r"[^\w.,()+ -]", "?", text)[:LONGEST_NAME].rstrip(".")


READERS: dict[str, Callable[[str, bytes, Serve], Sequence[Upload]]] = {
    "multipart/form-data": _form,
    "image/png": _single,
    "image/jpeg": _single,
    "application/json": _json,
    "application/x-npy": _npy,
}
