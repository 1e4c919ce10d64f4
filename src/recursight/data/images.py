"""Decodes one image: from encoded bytes to the uint8 pixels of the store.

Everything that Pillow opens becomes 8-bit grey or RGB: bilevel and 16-bit grey become 8-bit grey, palettes, CMYK and
the like become RGB, transparent images are composited over black, photographs are rotated by their EXIF orientation,
and only the first frame of an animation is used.
"""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 54_000_000
"""Maximum image size: allows a 50 megapixel photograph, but no decompression bomb."""

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF")
"""What is opened, whatever a file's name says. Pillow knows more, such as PostScript, for which it starts a program."""

MAX_FILE_BYTES = 256_000_000
_LARGE_PIXELS = 2_000_000
_LARGE_FILE_BYTES = 1_000_000  # is read by Pillow, a block at a time
_one_large_at_a_time = threading.Lock()  # otherwise memory would grow with the number of threads

# malloc returns blocks of this size to the system; smaller ones would stay in the heap of each thread.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]

Resize = Literal["pad", "crop", "stretch"]
Channels = Literal["keep", "grey", "rgb"]


class BadImage(Exception):
    """An image cannot be used; the message says why, without naming the image."""


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignores Pillow's warnings about unusual metadata; only pixels matter here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_bytes(image: bytes | Path) -> bytes:
    """The encoded bytes.

    Raises:
        BadImage: if the file is missing, unreadable, empty or too large.
    """
    content = _read(image, MAX_FILE_BYTES) if isinstance(image, Path) else image
    if content is None:
        raise BadImage(f"is larger than {MAX_FILE_BYTES:,} bytes.")
    if not content:
        raise BadImage("is empty.")
    return content


def read_start(source: bytes | Path, length: int = 16) -> bytes:
    """The first bytes of a file.

    Raises:
        BadImage: if it is missing, unreadable or empty.
    """
    if isinstance(source, bytes):
        head = source[:length]
    else:
        try:
            with source.open("rb") as file:
                head = file.read(length)
        except FileNotFoundError:
            raise BadImage("is listed but missing.") from None
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror}.") from None
    if not head:
        raise BadImage("is empty.")
    return head


def _read(path: Path, most: int) -> bytes | None:
    """The content of a file; None if it has more than `most` bytes."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.readall() if os.fstat(file.fileno()).st_size <= most else None
    except FileNotFoundError:
        raise BadImage("is listed but missing.") from None
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror}.") from None


def decode(
    image: bytes | Path | np.ndarray,
    size: tuple[int, int] | None = None,
    resize: Resize = "pad",
    channels: Channels = "keep",
) -> np.ndarray:
    """Decodes one image and converts it to the given size and channels.

    Args:
        image: encoded, or uint8 pixels H, W or H, W, C.
        size: height and width of the result; None keeps the original size.
        resize: `pad` scales the image to fit and fills with black, `crop` scales it to cover the size and crops both
            sides evenly, `stretch` changes the aspect ratio. Bilinear, with antialiasing.
        channels: `grey` (luma, ITU-R 601), `rgb`, or `keep` what the image has.

    Returns:
        uint8, H, W, C with C of 1 or 3.

    Raises:
        BadImage: if it cannot be decoded.
    """
    if isinstance(image, np.ndarray):
        pixels = image if image.ndim == 3 else image[:, :, None]
        if (size is None or size == pixels.shape[:2]) and channels in (
            "keep",
            "grey" if pixels.shape[2] == 1 else "rgb",
        ):
            return pixels
        return _fitted(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), size, resize, channels)
    content = _read(image, _LARGE_FILE_BYTES) if isinstance(image, Path) else image
    with open_image(image if content is None else read_bytes(content)) as opened:
        if opened.width * opened.height < _LARGE_PIXELS:
            return _decoded(opened, size, resize, channels)
        with _one_large_at_a_time:
            return _decoded(opened, size, resize, channels)


def pixels_of(image: bytes) -> int:
    """Height times width of an encoded image, read from its header only.

    Raises:
        BadImage: if it has no valid header, or more than `MAX_PIXELS`.
    """
    with open_image(image) as opened:
        return opened.width * opened.height


def open_image(image: bytes | Path) -> Image.Image:
    """Opens an image of one of `FORMATS` without decoding it.

    Raises:
        BadImage: if it has no valid header, or more than `MAX_PIXELS`.
    """
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage("is not an image that can be decoded.") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than {MAX_PIXELS:,} pixels: a decompression bomb?") from None
    except Exception as error:  # Pillow's parsers raise almost any exception on malformed bytes
        raise BadImage(f"cannot be decoded: {reason(error)}") from None
    if opened.width * opened.height > MAX_PIXELS:
        raise BadImage(f"has {opened.width}×{opened.height} pixels, more than {MAX_PIXELS:,}: a decompression bomb?")
    return opened


def _decoded(image: Image.Image, size: tuple[int, int] | None, resize: Resize, channels: Channels) -> np.ndarray:
    try:
        if size is not None and image.format == "JPEG":
            image.draft(None, (2 * max(size), 2 * max(size)))  # decodes at a reduced size, if that is enough
        image.load()
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _fitted(_canonical(image), size, resize, channels)
    except BadImage:
        raise
    except Exception as error:  # as above
        raise BadImage(f"cannot be decoded: {reason(error)}") from None


def as_pixels(image: Image.Image, channels: Channels) -> np.ndarray:
    """Converts a decoded image to uint8, H W C, as `decode` does.

    Raises:
        BadImage: if its pixels are of a kind that cannot be converted.
    """
    return _fitted(_canonical(image), None, "pad", channels)


def reason(error: Exception) -> str:
    """The parser's words, as the end of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _canonical(image: Image.Image) -> Image.Image:
    """Converts to mode L or RGB, or to La or RGBa, which are premultiplied by alpha as if over black."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise BadImage("has floating-point pixels; save it with 8 or 16 bits.")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "LA", "La"):
        return image.convert("LA").convert("La")
    if image.mode in ("RGBA", "RGBa"):
        return image.convert("RGBa")
    if image.mode == "PA" or "transparency" in image.info:
        return image.convert("RGBA").convert("RGBa")
    return image.convert("RGB")


def _fitted(image: Image.Image, size: tuple[int, int] | None, resize: Resize, channels: Channels) -> np.ndarray:
    if size is not None and (image.height, image.width) != size:
        height, width = size
        bilinear = Image.Resampling.BILINEAR
        if resize == "stretch":
            image = image.resize((width, height), bilinear)
        elif resize == "crop":
            image = ImageOps.fit(image, (width, height), bilinear)
        else:
            image = ImageOps.pad(image, (width, height), bilinear, color=0)
    if image.mode in ("La", "RGBa"):
        bands = image.split()[:-1]
        image = Image.merge("RGB", bands) if len(bands) == 3 else bands[0]
    mode = {"keep": image.mode, "grey": "L", "rgb": "RGB"}[channels]
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
