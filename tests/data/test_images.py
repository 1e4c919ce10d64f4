import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recursight.data.images import MAX_PIXELS, BadImage, decode, read_bytes


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


RED = Image.new("RGB", (4, 2), (200, 0, 0))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 2), 7), [7]),
        (Image.new("1", (4, 2), 1), [255]),
        (Image.new("I;16", (4, 2), 0x1234), [0x12]),
        (RED, [200, 0, 0]),
        (RED.convert("P"), None),
        (Image.new("RGBA", (4, 2), (200, 100, 0, 0)), [0, 0, 0]),
        (Image.new("RGBA", (4, 2), (200, 100, 0, 255)), [200, 100, 0]),
        (Image.new("LA", (4, 2), (200, 0)), [0]),
    ],
)
def test_every_mode_becomes_grey_or_rgb(image: Image.Image, expected: list[int] | None) -> None:
    pixels = decode(encoded(image))
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (2, 4)
    if expected is None:
        assert pixels.shape[2] == 3
    else:
        assert pixels[0, 0].tolist() == expected


def test_transparent_colours_are_laid_over_black() -> None:
    assert decode(encoded(Image.new("L", (4, 2), 90), transparency=90)).tolist() == [[[0]] * 4] * 2
    assert decode(encoded(RED, transparency=(200, 0, 0))).max() == 0
    palette = RED.convert("P", palette=Image.Palette.ADAPTIVE)
    assert decode(encoded(palette, transparency=palette.getpixel((0, 0)))).shape == (2, 4, 3)
    half = decode(encoded(Image.new("RGBA", (4, 2), (200, 100, 0, 128))))
    assert half[0, 0].tolist() == [100, 50, 0]
    assert decode(encoded(Image.new("RGBA", (4, 2), (200, 100, 0, 128))), (2, 2), "stretch")[0, 0].tolist() == [
        100,
        50,
        0,
    ]


def test_cmyk_becomes_rgb() -> None:
    assert decode(encoded(RED.convert("CMYK"), "TIFF")).shape == (2, 4, 3)


def test_floating_point_is_refused() -> None:
    with pytest.raises(BadImage, match="floating-point"):
        decode(encoded(Image.new("F", (4, 2)), "TIFF"))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (4, 2), value) for value in (0, 255)]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).max() == 0


def test_orientation_of_a_photograph() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode(encoded(RED, "JPEG", exif=exif)).shape == (4, 2, 3)


def test_channels() -> None:
    grey = decode(encoded(RED), channels="grey")
    assert grey.shape == (2, 4, 1)
    assert grey[0, 0, 0] == round(0.299 * 200)
    assert decode(encoded(grey_image := Image.new("L", (4, 2), 9)), channels="rgb").tolist() == [[[9] * 3] * 4] * 2
    assert decode(np.asarray(grey_image), channels="rgb").shape == (2, 4, 3)


def test_sizes() -> None:
    white = encoded(Image.new("L", (4, 2), 255))
    padded = decode(white, (4, 4), "pad")[:, :, 0]
    assert padded[[0, 3]].max() == 0
    assert padded[[1, 2]].min() == 255
    assert decode(white, (4, 4), "crop").min() == 255
    assert decode(white, (6, 3), "stretch").shape == (6, 3, 1)


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 64)])
def test_size_is_as_asked(resize: str, size: tuple[int, int]) -> None:
    assert decode(encoded(RED, "JPEG"), size, resize).shape == (*size, 3)  # type: ignore[arg-type]
    assert decode(np.zeros((3, 9), np.uint8), size, resize).shape == (*size, 1)  # type: ignore[arg-type]


def test_large_photographs_shrink_like_small_ones() -> None:
    """A JPEG is decoded at a fraction of its size where that is enough; the outcome must stay the same picture."""
    row = np.linspace(0, 255, 2400, dtype=np.uint8)
    photograph = Image.fromarray(np.tile(row, (1600, 1)))
    shrunk = decode(encoded(photograph, "JPEG", quality=95), (16, 24))[:, :, 0].astype(int)
    plain = decode(encoded(photograph), (16, 24))[:, :, 0].astype(int)
    assert np.abs(shrunk - plain).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), format)
    with pytest.raises(BadImage):
        decode(whole[: len(whole) * 2 // 3])


def test_postscript_under_another_name_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand it to Ghostscript, here a script that leaves a trace."""
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    picture = tmp_path / "picture.png"
    Image.new("L", (4, 4)).save(picture, "EPS")
    for image in (picture, picture.read_bytes()):
        with pytest.raises(BadImage, match="is not an image that can be decoded"):
            decode(image)
    assert not (tmp_path / "started").exists()


def test_empty_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"is empty\."):
        decode(b"")
    with pytest.raises(BadImage, match=r"is listed but missing\."):
        read_bytes(tmp_path / "none.png")
    with pytest.raises(BadImage, match=r"cannot be read: Is a directory\."):
        read_bytes(tmp_path)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that promises this many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [7_349, 10_000, 60_000])
def test_decompression_bomb(side: int) -> None:
    assert side * side > MAX_PIXELS
    with pytest.raises(BadImage, match=r"a decompression bomb\?"):
        decode(bomb(side, side))


def test_every_image_is_opened_in_the_formats_of_the_list() -> None:
    """Pillow would open any format that it knows, whatever the name of the file."""
    sources = [path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "src").rglob("*.py")]
    calls = [call for source in sources for call in re.findall(r"\bImage\.open\(.*", source)]
    assert calls
    assert all("formats=FORMATS" in call for call in calls)
