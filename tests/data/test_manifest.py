from pathlib import Path

import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import open_source
from recursight.data.records import Fault, Record
from recursight.data.store import open_store
from recursight.errors import InputError

from .pictures import pictures, png, splits_of, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "source", splits_of(pictures(), False))
    return tmp_path / "source"


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.csv"
    content = path.read_bytes().decode()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode())


def faults(folder: Path) -> list[str]:
    return [str(item) for item in open_source(folder).read() if isinstance(item, Fault)]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hosts", "a/../../secret.png"])
def test_path_that_leaves_the_folder(folder: Path, path: str) -> None:
    (folder.parent / "secret.png").write_bytes(png(pictures()["2"][0]))
    rewrite(folder, "0.png", path)
    assert faults(folder) == [f"{path} is outside the folder (manifest.csv line 2)."]


def test_link_that_leaves_the_folder(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(png(pictures()["2"][0]))
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(folder.parent / "secret.png")
    assert faults(folder) == ["0.png is outside the folder (manifest.csv line 2)."]


def test_listed_but_missing_and_all_others(folder: Path) -> None:
    (folder / "0.png").unlink()
    rewrite(folder, "1.png,2,", "1.png,,")
    rewrite(folder, "2.png,2,", ",2,")
    (folder / "3.png").write_bytes(b"")
    with pytest.raises(InputError) as error:
        prepare(folder, folder.parent / "store")
    sentence = str(error.value)
    assert "the data has 4 errors" in sentence
    assert "0.png is listed but missing (manifest.csv line 2)." in sentence
    assert "1.png has no label (manifest.csv line 3)." in sentence
    assert "manifest.csv line 4 has no path." in sentence
    assert "3.png is empty." in sentence
    assert prepare(folder, folder.parent / "store", skip_bad=True)["count"] == 36


def test_splits_are_all_or_none(folder: Path) -> None:
    rewrite(folder, "0.png,2,", "0.png,2,train")
    assert len(faults(folder)) == 39
    assert "1.png has no split, although others have one (manifest.csv line 3)" in faults(folder)[0]


def test_unknown_split(folder: Path) -> None:
    rewrite(folder, "0.png,2,", "0.png,2,holdout")
    assert "0.png has split 'holdout' (manifest.csv line 2); known: train" in faults(folder)[0]


def test_listed_twice(folder: Path) -> None:
    rewrite(folder, "1.png", "0.png")
    with pytest.raises(InputError, match=r"0\.png is listed twice\."):
        prepare(folder, folder.parent / "store")


def test_label_column_missing(folder: Path) -> None:
    rewrite(folder, "path,label,split", "path,lable,split")
    with pytest.raises(InputError, match=r"manifest.csv has no column 'label'; did you mean 'lable'\?"):
        open_source(folder)


def test_empty_and_not_text(folder: Path) -> None:
    (folder / "manifest.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no column 'path'; it is empty\."):
        open_source(folder)
    (folder / "manifest.csv").write_bytes(b"path,label\n\xff\xfe,2\n")
    with pytest.raises(InputError, match=r"is not UTF-8"):
        open_source(folder)
    (folder / "manifest.csv").write_bytes(b'path,label\n"0.png,2\n')
    with pytest.raises(InputError, match=r"is not valid CSV"):
        open_source(folder)


def test_a_spreadsheets_byte_order_mark_and_line_ends(folder: Path) -> None:
    text = (folder / "manifest.csv").read_text()
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert open_source(folder).count == 40
    assert faults(folder) == []


def test_groups_reach_the_examples_of_the_store(folder: Path) -> None:
    lines = (folder / "manifest.csv").read_text().splitlines()
    rows = [f"{line},{'writer ' + str(number // 4) if number < 20 else ''}" for number, line in enumerate(lines[1:])]
    (folder / "manifest.csv").write_text("\n".join([f"{lines[0]},group", *rows]))
    assert [record.group for record in open_source(folder).read() if isinstance(record, Record)][4] == "writer 1"
    prepare(folder, folder.parent / "store")
    examples = open_store(folder.parent / "store").examples
    assert list(examples["group"][:5]) == ["writer 0"] * 4 + ["writer 1"]
    assert list(examples["group"][20:]) == [""] * 20
    assert (examples[examples["group"] != ""].groupby("group")["split"].nunique() == 1).all()
