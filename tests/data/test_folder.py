from pathlib import Path

import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import open_source
from recursight.data.records import Fault, Record, natural_order
from recursight.errors import InputError
from recursight.tasks.classification import Classification

from .pictures import pictures, png, splits_of, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "source", splits_of(pictures(), False))
    return tmp_path / "source"


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        prepare(folder, folder.parent / "store")
    assert not (folder.parent / "store").exists()
    return str(error.value)


def test_numbers_sort_by_value(folder: Path) -> None:
    assert sorted(["10", "2", "b", "A", "1x"], key=natural_order) == ["1x", "2", "10", "A", "b"]
    ids = [record.id for record in open_source(folder).read()]
    assert ids[:3] == ["2/0.png", "2/1.png", "2/2.png"]
    assert ids[10] == "2/10.png"


@pytest.mark.parametrize(("name", "split"), [("val", "validation"), ("Valid", "validation"), ("TEST", "test")])
def test_names_of_splits(tmp_path: Path, name: str, split: str) -> None:
    write_folder(tmp_path / "train", splits_of(pictures(), False))
    write_folder(tmp_path / name, splits_of(pictures(seed=1), False))
    assert {record.split for record in open_source(tmp_path).read()} == {"train", split}


def test_a_class_may_be_called_test(folder: Path) -> None:
    (folder / "2").rename(folder / "test")
    assert open_source(folder).classes == ("10", "test")


def test_class_beside_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", splits_of(pictures(), False))
    write_folder(tmp_path, splits_of(pictures(), False))
    with pytest.raises(InputError, match=r"2/ is next to train/; is it a class or a split\?"):
        open_source(tmp_path)


def test_split_without_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", splits_of(pictures(), False))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(png(pictures()["2"][0]))
    with pytest.raises(InputError, match=r"test/ contains no class folders"):
        open_source(tmp_path)


def test_folders_within_a_class(folder: Path) -> None:
    (folder / "2" / "deeper").mkdir()
    (folder / "2" / "0.png").rename(folder / "2" / "deeper" / "0.png")
    assert Record("2/deeper/0.png", "2", None, None, folder / "2/deeper/0.png") in list(open_source(folder).read())


def test_every_bad_image_is_named(folder: Path) -> None:
    (folder / "2" / "0.png").write_bytes(b"")
    (folder / "2" / "1.png").write_bytes(b"this is no image")
    whole = (folder / "10" / "21.png").read_bytes()
    (folder / "10" / "21.png").write_bytes(whole[: len(whole) // 2])
    (folder / "loose.png").write_bytes(whole)
    sentence = refused(folder)
    assert "the data has 4 errors; nothing was changed." in sentence
    assert "--skip-bad" in sentence
    assert "2/0.png is empty." in sentence
    assert "2/1.png is not an image that can be decoded." in sentence
    assert "10/21.png cannot be decoded: " in sentence
    assert "loose.png is not in a class folder." in sentence
    summary = prepare(folder, folder.parent / "store", skip_bad=True)
    assert summary["count"] == 37
    assert len(summary["skipped"]) == 4


def test_link_that_leaves_the_folder(folder: Path) -> None:
    outside = folder.parent / "secret.png"
    outside.write_bytes(png(pictures()["2"][0]))
    (folder / "2" / "link.png").symlink_to(outside)
    (folder / "2" / "inner.png").symlink_to(folder / "2" / "0.png")
    (folder / "10" / "all").symlink_to(folder.parent)
    faults = [str(item) for item in open_source(folder).read() if isinstance(item, Fault)]
    assert faults == [
        "2/link.png is a link that points outside the folder.",
        "10/all is a link that points outside the folder.",
    ]


def test_links_into_the_cache_of_dvc_are_followed(folder: Path) -> None:
    """DVC puts such links in place of the files, where it is told to."""
    cached = folder.parent / "cache" / "files" / "md5" / "ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    (folder / "2" / "0.png").rename(cached)
    (folder / "2" / "0.png").symlink_to(cached)
    assert prepare(folder, folder.parent / "store")["count"] == 40


def test_other_files_are_left_aside_and_named(folder: Path) -> None:
    (folder / "2" / "labels.txt").write_text("hm")
    (folder / "2" / ".hidden").write_text("hm")
    assert open_source(folder).ignored == ("2/labels.txt",)


def test_one_class(folder: Path) -> None:
    for path in (folder / "10").iterdir():
        path.unlink()
    (folder / "10").rmdir()
    with pytest.raises(InputError, match=r"one class only \('2'\); a classifier needs two or more."):
        prepare(folder, folder.parent / "store", strata=Classification().strata)


def test_class_without_images(folder: Path) -> None:
    (folder / "11").mkdir()
    assert "no images of class '11'" in refused(folder)
