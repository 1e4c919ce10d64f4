import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import idx, open_source
from recursight.errors import InputError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    draw = np.random.default_rng(0)
    idx.write(folder / IMAGES, draw.integers(0, 256, (40, 6, 5), np.uint8))
    idx.write(folder / LABELS, np.arange(40, dtype=np.uint8) % 2)
    return folder


def refused(folder: Path) -> str:
    """The sentence; nothing may be written."""
    store = folder.parent / "store"
    with pytest.raises(InputError) as error:
        prepare(folder, store)
    assert not store.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["source"]
    return str(error.value)


def test_labels_without_names_are_called_by_number(folder: Path) -> None:
    idx.write(folder / LABELS, np.where(np.arange(40) % 2, 3, 12).astype(np.uint8))
    assert open_source(folder).classes == ("3", "12")


def test_dotted_names_as_on_kaggle(folder: Path) -> None:
    (folder / IMAGES).rename(folder / "train-images.idx3-ubyte")
    (folder / LABELS).rename(folder / "train-labels.idx1-ubyte")
    assert {record.split for record in open_source(folder).read()} == {"train"}


def test_same_values_give_the_same_gzip_bytes(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        idx.write(tmp_path / name, np.arange(10, dtype=np.uint8))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_truncated(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(content[:-1])
    assert f"{IMAGES} is truncated: it is shorter than its header declares." in refused(folder)


def test_truncated_gzip(folder: Path) -> None:
    packed = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(packed[:-20])
    assert "is truncated: its gzip stream does not end." in refused(folder)


def test_damaged_gzip(folder: Path) -> None:
    packed = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    (folder / IMAGES).unlink()
    packed[-6] ^= 0xFF  # the checksum at the end
    (folder / f"{IMAGES}.gz").write_bytes(packed)
    assert "is damaged: CRC check failed" in refused(folder)


def test_truncated_within_its_header(folder: Path) -> None:
    (folder / IMAGES).write_bytes(b"\0\0\x08\x03\0\0")
    assert "is truncated" in refused(folder)


def test_wrong_magic(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(b"\0\0\x0d\x03" + content[4:])
    assert "its magic number is 0x00000d03, not 0x00000803" in refused(folder)


def test_not_gzip(folder: Path) -> None:
    (folder / IMAGES).rename(folder / f"{IMAGES}.gz")
    assert f"{IMAGES}.gz is not gzip, although its name ends in .gz." in refused(folder)


def test_gzip_without_the_name(folder: Path) -> None:
    (folder / IMAGES).write_bytes(gzip.compress((folder / IMAGES).read_bytes()))
    assert "rename it" in refused(folder)


def test_other_number_of_labels(folder: Path) -> None:
    idx.write(folder / LABELS, np.zeros(39, np.uint8))
    assert f"{IMAGES} contains 40 images, but {LABELS} 39 labels." in refused(folder)


def test_labels_missing(folder: Path) -> None:
    (folder / LABELS).unlink()
    assert "has no labels:" in refused(folder)


def test_more_than_promised_is_refused_unread(folder: Path) -> None:
    """A small gzip file that would unpack to a gigabyte: only what the header promises is ever read."""
    (folder / IMAGES).unlink()
    with gzip.open(folder / f"{IMAGES}.gz", "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">4I", 0x803, 40, 6, 5))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert "is longer than its header declares." in refused(folder)


def test_giant_promises(folder: Path) -> None:
    (folder / IMAGES).write_bytes(struct.pack(">4I", 0x803, 40, 2**31, 2**31))
    assert "2147483648×2147483648 pixels per image" in refused(folder)
    (folder / IMAGES).write_bytes(struct.pack(">4I", 0x803, 2**32 - 1, 28, 28))
    assert "declares 4,294,967,295 images" in refused(folder)


def test_no_images(folder: Path) -> None:
    idx.write(folder / IMAGES, np.zeros((0, 6, 5), np.uint8))
    assert "contains no images" in refused(folder)


def test_label_without_a_name(folder: Path) -> None:
    (folder / "classes.txt").write_text("only\n")
    assert "the labels go up to 1, but classes.txt names only 1 classes." in refused(folder)


def test_impossible_channels(folder: Path) -> None:
    (folder / IMAGES).unlink()
    idx.write(folder / "images-idx4-ubyte", np.zeros((40, 6, 5, 2), np.uint8))
    assert "declares 2 channels; images have 1 or 3." in refused(folder)


def test_unknown_split(folder: Path) -> None:
    (folder / IMAGES).rename(folder / f"trian-{IMAGES}")
    assert "'trian' is not a split" in refused(folder)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    for split in ("train", "t10k"):
        (folder / f"{split}-{IMAGES}").write_bytes((folder / IMAGES).read_bytes()[:-1])
        (folder / f"{split}-{LABELS}").write_bytes((folder / LABELS).read_bytes())
    (folder / IMAGES).unlink()
    (folder / LABELS).unlink()
    sentence = refused(folder)
    assert "2 errors" in sentence
    assert f"train-{IMAGES} is truncated" in sentence
    assert f"t10k-{IMAGES} is truncated" in sentence
