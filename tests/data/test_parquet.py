from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import open_source
from recursight.data.records import Fault, Record
from recursight.errors import InputError

from .pictures import parquet_table, pictures, png, splits_of, write_parquet

NAME = "train-00000-of-00001.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "source", splits_of(pictures(), True))
    return tmp_path / "source"


def plain(values: dict[str, list[object]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(values), path)


IMAGES = [png(pixels) for images in pictures().values() for pixels in images]
LABELS = ["cat"] * 20 + ["dog"] * 20


def test_bytes_and_strings_and_columns(tmp_path: Path) -> None:
    columns = {"img": IMAGES, "label": LABELS, "split": ["train"] * 39 + ["test"], "group": ["a"] * 2 + [None] * 38}
    plain(columns | {"id": [f"n{number}" for number in range(40)]}, tmp_path / "any.parquet")
    source = open_source(tmp_path)
    records = [item for item in source.read() if isinstance(item, Record)]
    assert source.classes == ("cat", "dog")
    assert records[0][:4] == ("n0", "cat", "train", "a")
    assert records[39][:4] == ("n39", "dog", "test", None)


def test_integers_without_names(tmp_path: Path) -> None:
    plain({"image": IMAGES, "label": [10] * 20 + [9] * 20}, tmp_path / "any.parquet")
    assert open_source(tmp_path).classes == ("9", "10")


@pytest.mark.parametrize("name", ["default/train/0000.parquet", "data/train-00000-of-00001.parquet", "train.parquet"])
def test_split_in_names(tmp_path: Path, name: str) -> None:
    plain({"image": IMAGES, "label": LABELS}, tmp_path / "x" / name)
    plain({"image": IMAGES[:2], "label": LABELS[:2]}, tmp_path / "x" / name.replace("train", "validation"))
    splits = [item.split for item in open_source(tmp_path).read() if isinstance(item, Record)]
    assert splits == ["train"] * 40 + ["validation"] * 2


def test_some_names_without_a_split(folder: Path) -> None:
    (folder / NAME).rename(folder / "part.parquet")
    with pytest.raises(InputError, match=r"part.parquet: the name contains no split, although those of other files do"):
        open_source(folder)


def test_columns_missing(tmp_path: Path) -> None:
    plain({"image": IMAGES, "klass": LABELS}, tmp_path / "any.parquet")
    with pytest.raises(InputError, match=r"any.parquet has no column 'label' or 'labels'; it has image, klass\."):
        open_source(tmp_path)


def test_types(tmp_path: Path) -> None:
    plain({"image": LABELS, "label": LABELS}, tmp_path / "any.parquet")
    with pytest.raises(InputError, match=r"column 'image' is string; it must contain encoded images"):
        open_source(tmp_path)
    plain({"image": IMAGES, "label": [0.5] * 40}, tmp_path / "any.parquet")
    with pytest.raises(InputError, match=r"column 'label' is double; it must contain integers or strings"):
        open_source(tmp_path)


def test_not_parquet_and_truncated(folder: Path) -> None:
    (folder / NAME).write_bytes(b"PAR1 this is none")
    test = next(folder.glob("test*"))
    test.write_bytes(test.read_bytes()[:-10])
    with pytest.raises(InputError) as error:
        open_source(folder)
    assert len(str(error.value).splitlines()) == 2
    assert f"{NAME} is not a parquet file, or is damaged: " in str(error.value)


def test_damaged_in_the_middle(folder: Path) -> None:
    content = bytearray((folder / NAME).read_bytes())
    content[10:200] = bytes(190)
    (folder / NAME).write_bytes(content)
    with pytest.raises(InputError, match=rf"{NAME} "):
        prepare(folder, folder.parent / "store", skip_bad=True)
    assert not (folder.parent / "store").exists()


def test_bad_rows_are_all_named(tmp_path: Path) -> None:
    images: list[bytes | None] = list(IMAGES)
    images[1], images[2] = None, b"junk"
    labels = [0] * 20 + [1] * 20
    labels[3] = -1  # as Hugging Face marks what has no label
    (tmp_path / "source").mkdir()
    pq.write_table(parquet_table(images, labels), tmp_path / "source" / "a.parquet")
    with pytest.raises(InputError) as error:
        prepare(tmp_path / "source", tmp_path / "store")
    assert str(error.value).splitlines()[1:] == [
        "a.parquet:1 has no image bytes.",
        "a.parquet:2 is not an image that can be decoded.",
        "a.parquet:3 has label -1, but the schema names classes 0 to 1.",
    ]
    assert prepare(tmp_path / "source", tmp_path / "store", skip_bad=True)["count"] == 37


def test_link_that_leaves_the_folder(folder: Path) -> None:
    (folder / NAME).rename(folder.parent / NAME)
    (folder / NAME).symlink_to(folder.parent / NAME)
    with pytest.raises(InputError, match=r"is a link that points outside the folder"):
        open_source(folder)


def test_split_column_with_an_unknown_name(tmp_path: Path) -> None:
    plain({"image": IMAGES, "label": LABELS, "split": ["train"] * 39 + ["hold"]}, tmp_path / "a.parquet")
    faults = [item for item in open_source(tmp_path).read() if isinstance(item, Fault)]
    assert [fault.id for fault in faults] == ["a.parquet:39"]
