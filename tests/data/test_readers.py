"""The contract of every reader: the same pixels through every format give the same store."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import READERS, open_source
from recursight.data.records import Fault, Record
from recursight.data.store import open_store
from recursight.errors import InputError

from .pictures import CLASSES, WRITERS, pictures, splits_of

STILLS = sorted(READERS.keys() - {"events"})  # its contract is in test_events.py


def test_every_reader_has_a_writer_here() -> None:
    assert sorted(WRITERS) == STILLS


@pytest.mark.parametrize("format", STILLS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_splits", [False, True])
def test_same_pixels_give_the_same_store(tmp_path: Path, format: str, channels: int, with_splits: bool) -> None:
    rows = splits_of(pictures(channels), with_splits)
    WRITERS[format](tmp_path / "source", rows)
    summary = prepare(tmp_path / "source", tmp_path / "store")
    store = open_store(tmp_path / "store")
    expected = np.stack([pixels for _, _, pixels in rows]).reshape(len(rows), 6, 5, channels)
    np.testing.assert_array_equal(store.frames, expected)
    assert tuple(store.targets["value"].cat.categories) == CLASSES
    assert store.targets["value"].tolist() == [label for _, label, _ in rows]
    assert (store.targets["end_frame"] == 1).all()
    assert store.stills
    assert summary["source"] == {"format": format}
    if with_splits:
        official = [split for split, _, _ in rows]
        kept = ["train" if split == "validation" else split for split in store.examples["split"]]
        assert kept == official
    WRITERS["idx"](tmp_path / "other", rows)
    prepare(tmp_path / "other", tmp_path / "other store")
    other = open_store(tmp_path / "other store")
    pd.testing.assert_frame_equal(store.examples.drop(columns="id"), other.examples.drop(columns="id"))
    pd.testing.assert_frame_equal(store.targets, other.targets)
    assert (store.mean, store.std) == (other.mean, other.std)


@pytest.mark.parametrize("format", STILLS)
def test_reading_twice_gives_the_same(tmp_path: Path, format: str) -> None:
    WRITERS[format](tmp_path, splits_of(pictures(), True))
    source = open_source(tmp_path)
    first, second = list(source.read()), list(source.read())
    assert not any(isinstance(item, Fault) for item in first)
    assert [item[:4] for item in first] == [item[:4] for item in second]
    assert len(first) == source.count
    assert len({item.id for item in first if isinstance(item, Record)}) == source.count


@pytest.mark.parametrize("format", STILLS)
def test_two_runs_write_the_same_bytes(tmp_path: Path, format: str) -> None:
    WRITERS[format](tmp_path / "source", splits_of(pictures(), False))
    for name in ("first", "second"):
        prepare(tmp_path / "source", tmp_path / name)
    for name in ("frames.npy", "examples.parquet", "targets.parquet", "statistics.parquet", "store.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_lone_folder_around_everything_does_not_matter(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path / "a" / "flowers", splits_of(pictures(), True))
    assert open_source(tmp_path / "a").classes == CLASSES


def test_missing_empty_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is missing\."):
        open_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is empty\."):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("no images here")
    with pytest.raises(InputError, match=r"in no known data format. Looked for: IDX .*manifest.csv.*parquet.*image"):
        open_source(tmp_path)
