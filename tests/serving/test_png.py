"""Plain PNG files by native code: the same pixels as Pillow's, or none."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.data.images import decode
from recursight.data.store import open_store
from recursight.registry import register
from recursight.serving import load_champion, png
from recursight.serving.folder import score_folder

native = pytest.mark.skipif(png._libraries() is None, reason="no compiler or zlib on this machine")


def paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda each: abs(guess - each))


PREDICTION = {
    0: lambda left, above, corner: 0,
    1: lambda left, above, corner: left,
    2: lambda left, above, corner: above,
    3: lambda left, above, corner: (left + above) // 2,
    4: paeth,
}


def filtered(pixels: np.ndarray, filters: np.ndarray) -> bytes:
    """The rows as the PNG specification filters them, value by value."""
    height, width, _ = pixels.shape
    values = np.pad(pixels.astype(int), ((1, 0), (1, 0), (0, 0)))
    rows = b""
    for y in range(1, height + 1):
        kind = int(filters[y - 1])
        rows += bytes([kind])
        for x in range(1, width + 1):
            neighbours = zip(values[y, x - 1], values[y - 1, x], values[y - 1, x - 1], strict=True)
            predicted = [PREDICTION.get(kind, PREDICTION[0])(*map(int, each)) for each in neighbours]
            rows += bytes(((values[y, x] - predicted) % 256).tolist())
    return rows


def file_of(shape: tuple[int, int, int], compressed: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, depth = shape
    header = struct.pack(">2I5B", width, height, 8, 2 if depth == 3 else 0, 0, 0, 0)
    middle = len(compressed) // 2
    data = chunk(b"IDAT", compressed[:middle]) + chunk(b"IDAT", compressed[middle:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.fixture(params=["libdeflate", "zlib"])
def inflated_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "zlib":
        monkeypatch.setattr(png, "LIBDEFLATE", ())
    elif png._loaded(png.LIBDEFLATE) is None:
        pytest.skip("libdeflate is not installed")
    png._libraries.cache_clear()
    yield
    png._libraries.cache_clear()


@pytest.fixture
def decoded(tmp_path: Path, inflated_by: None) -> Callable[..., tuple[list[bool], np.ndarray]]:
    def decode_all(files: Sequence[bytes], shape: tuple[int, int, int]) -> tuple[list[bool], np.ndarray]:
        names = [f"{number:04}.png" for number in range(len(files))]
        for name, file in zip(names, files, strict=True):
            (tmp_path / name).write_bytes(file)
        pixels = np.full((len(files), *shape), 7, np.uint8)
        done, versions = png.decode_files(tmp_path, names, pixels)
        for name, works, version in zip(names, done, versions.tolist(), strict=True):
            status = (tmp_path / name).stat()
            assert not works or version == [status.st_size, status.st_mtime_ns]
        return done.tolist(), pixels

    return decode_all


@native
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (6, 1, 3), (28, 28, 1), (9, 13, 3)])
def test_every_filter_gives_the_pixels_back(decoded, shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, *shape), dtype=np.uint8)
    files = [file_of(shape, zlib.compress(filtered(one, random.integers(0, 5, shape[0])))) for one in images]
    assert all((decode(file) == one).all() for file, one in zip(files, images, strict=True))
    done, pixels = decoded(files, shape)
    assert all(done)
    assert (pixels == images).all()


@native
def test_a_damaged_png_gives_what_pillow_makes_of_it_or_is_left_to_it(decoded) -> None:
    """Nothing that Pillow refuses may be taken, nor anything otherwise than by Pillow."""
    shape = (7, 6, 3)
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    whole = file_of(shape, zlib.compress(filtered(image, np.arange(7) % 5)))
    damaged = [whole[:length] for length in range(len(whole))]
    for position in range(len(whole)):
        values = {0, 4, 5, 255, whole[position] ^ 1} - {whole[position]}
        damaged += [whole[:position] + bytes([value]) + whole[position + 1 :] for value in sorted(values)]
    done, pixels = decoded([whole, *damaged], shape)
    assert done[0]
    assert (pixels[0] == image).all()
    assert 0 < sum(done) < len(done) / 4  # a checksum that nobody needs may be wrong
    for file, works, found in zip([whole, *damaged], done, pixels, strict=True):
        assert not works or (decode(file) == found).all()


@native
def test_what_is_not_plain_or_not_of_the_shape_is_left_and_spoils_no_other(decoded) -> None:
    shape = (4, 6, 1)
    image = np.arange(24, dtype=np.uint8).reshape(shape)
    good = zlib.compress(filtered(image, np.array([0, 1, 2, 4])))
    unknown_filter = zlib.compress(filtered(image, np.array([0, 1, 9, 4])))
    transparent = file_of(shape, good).replace(b"IEND", b"tRNS")
    files = {
        "another shape": file_of((6, 4, 1), good),
        "another depth": file_of((4, 6, 3), good),
        "an unknown filter": file_of(shape, unknown_filter),
        "too few rows": file_of(shape, zlib.compress(bytes(4 * 7 - 1))),
        "a bomb": file_of(shape, zlib.compress(bytes(100_000_000))),
        "another chunk": transparent,
        "nothing": b"",
        "a large file": file_of(shape, good) + bytes(2**20),
        "no image": b"no image",
    }
    done, pixels = decoded([each for file in files.values() for each in (file_of(shape, good), file)], shape)
    assert dict(zip(files, done[1::2], strict=True)) == dict.fromkeys(files, False)
    assert all(done[::2])
    assert (pixels[::2] == image).all()


@native
def test_missing_files_folders_and_pipes_are_left(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["missing.png", "folder.png", "pipe.png", "été/\udcff.png"]
    assert not png.decode_files(tmp_path, names, np.empty((4, 2, 2, 1), np.uint8))[0].any()
    assert not png.decode_files(tmp_path / "none", names, np.empty((4, 2, 2, 1), np.uint8))[0].any()


@native
def test_a_folder_is_scored_alike_without_native_code(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(project)
    champion = load_champion(project)
    images = open_store(project.store).images[:40, 0]
    random = np.random.default_rng(2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(images):
        file = file_of(image.shape, zlib.compress(filtered(image, random.integers(0, 5, len(image)))))
        (folder / f"{number:02}.png").write_bytes(file)
    strange = filtered(images[0], np.full(len(images[0]), 9))
    (folder / "20b.png").write_bytes(file_of(images[0].shape, zlib.compress(strange)))
    (folder / "30b.png").write_bytes(b"no image")

    def scored(name: str) -> tuple[pd.DataFrame, list[str], list[np.ndarray]]:
        said: list[str] = []
        seen: list[np.ndarray] = []
        score_folder(
            champion, folder, tmp_path / name, skip=said.append, found=lambda images, scores: seen.append(images)
        )
        return pd.read_parquet(tmp_path / name), said, seen

    table, said, seen = scored("native.parquet")
    assert (np.concatenate(seen) == images).all()
    assert len(said) == 2
    monkeypatch.setattr(png, "_libraries", lambda: None)
    other_table, other_said, other_seen = scored("pillow.parquet")
    pd.testing.assert_frame_equal(table, other_table)
    assert said == other_said
    assert (np.concatenate(other_seen) == images).all()
