"""From the body of a request to the images that the model takes. Nothing here is unpickled.

Only PNG and JPEG are decoded, so that few parsers read untrusted bytes.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from pydantic import BaseModel

from recursight.data.images import BadImage, pixels_of
from recursight.params import Serve
from recursight.registry.loading import LoadedVersion
from recursight.serving.champion import decode_for

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


class Form(BaseModel):
    """Image files; the name of their field does not matter."""

    file: list[bytes]


class Arrays(BaseModel):
    """Images, each height × width for grey or height × width × 3, with integers from 0 to 255."""

    images: list[list[list[int | list[int]]]]


def images_in(content_type: str, body: bytes, model: LoadedVersion, limits: Serve) -> tuple[np.ndarray, list[str]]:
    """Decodes the images of a request: uint8 (N, H, W, C), as the model takes them, and their names.

    Raises:
        RequestError: if there is anything wrong with any of them.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in READERS:
        said = f"{kind!r} is" if kind else "no Content-Type is"
        raise RequestError(415, f"{said} not understood here; send one of {', '.join(READERS)}.")
    uploads = READERS[kind].read(content_type, body, limits)
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
    return np.stack([_decoded(model, upload) for upload in uploads]), [upload.name for upload in uploads]


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


def _decoded(model: LoadedVersion, upload: Upload) -> np.ndarray:
    try:
        return decode_for(model, upload.content)
    except BadImage as fault:
        raise RequestError(422, f"{upload.name} {fault}") from None


def _single(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    return [Upload("the image", body)] if body else []


def _form(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    """The files of a form, whatever their fields are called."""
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import FormParser, parse_options_header

    uploads: list[Upload] = []
    fields = 0

    def keep(file: Any) -> None:
        _require_few(len(uploads) + 1, limits)
        file.file_object.seek(0)
        name = _printable(file.file_name or b"") or f"image {len(uploads) + 1}"
        uploads.append(Upload(name, file.file_object.read()))

    def count(field: Any) -> None:
        nonlocal fields
        fields += 1
        if fields > MOST_FIELDS:
            raise RequestError(413, f"The form has more than {MOST_FIELDS} fields that are no files.")

    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise MultipartParseError("its Content-Type names no boundary")
        in_memory = {"MAX_MEMORY_FILE_SIZE": limits.max_bytes + 1}
        parser = FormParser("multipart/form-data", count, keep, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise RequestError(400, f"The form cannot be read: {' '.join(str(error).split()).rstrip('.')}.") from None
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
    try:
        array = np.array(image)
    except (ValueError, OverflowError, RecursionError):
        raise RequestError(422, f"image {number} is ragged: its rows must be equally long.") from None
    if array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise RequestError(422, f"image {number} must hold integers from 0 to 255.")
    return _shaped(f"image {number}", array.astype(np.uint8))


def _shaped(name: str, pixels: np.ndarray) -> np.ndarray:
    """H, W, C; a grey image may lack its last axis."""
    shaped = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if shaped.ndim != 3 or shaped.shape[2] not in (1, 3) or not shaped.size:
        said = " × ".join(map(str, pixels.shape)) or "a number"
        raise RequestError(422, f"{name} is {said}; it must be height × width, for grey, or height × width × 3.")
    return shaped


def _npy(content_type: str, body: bytes, limits: Serve) -> list[Upload]:
    """One array, N × H × W or N × H × W × C."""
    shape, fortran, start = _npy_header(body)
    if len(shape) not in (3, 4):
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
    except Exception:  # numpy's parser lets several kinds out
        raise RequestError(400, "The body is no .npy file; make it with numpy.save.") from None
    if dtype != np.uint8:
        raise RequestError(422, f"The array must be uint8; it is {dtype}.")
    return shape, fortran, file.tell()


def _printable(name: bytes) -> str:
    """A file's name as it may stand in a sentence."""
    return re.sub(r"[^\w.,()+ -]", "?", name.decode("utf-8", "replace"))[:LONGEST_NAME]


@dataclass(frozen=True)
class Reader:
    """How bodies of one Content-Type are read.

    Attributes:
        read: from the Content-Type, the body and the limits to the images.
        schema: of the body, for /openapi.json; a body of plain bytes needs none.
    """

    read: Callable[[str, bytes, Serve], Sequence[Upload]]
    schema: type[BaseModel] | None = None

    @property
    def media_type(self) -> dict[str, Any]:
        """OpenAPI's description of the body."""
        return {"schema": self.schema.model_json_schema()} if self.schema else {}


READERS = {
    "multipart/form-data": Reader(_form, Form),
    "image/png": Reader(_single),
    "image/jpeg": Reader(_single),
    "application/json": Reader(_json, Arrays),
    "application/x-npy": Reader(_npy),
}
