"""Streams with events: the list, its units, and what the store makes of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recursight.data.prepare import prepare
from recursight.data.readers import open_source
from recursight.data.records import Event, Fault, Record
from recursight.data.split import TEST, TRAIN, VALIDATION, Strata, assign, units_of
from recursight.data.store import open_store
from recursight.errors import InputError

from .clip_files import bar, write_npy, write_video
from .test_split import hashes

SECONDS = "path,start_seconds,end_seconds,label,split,rate\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six streams of 3 seconds with 10 frames a second."""
    for number in range(6):
        write_npy(tmp_path / "source" / f"{number}.npy", bar(30, number))
    return tmp_path / "source"


def write(folder: Path, rows: list[str], header: str = SECONDS) -> None:
    (folder / "events.csv").write_text(header + "".join(f"{row}\n" for row in rows))


def everywhere(*events: str) -> list[str]:
    """The same events in all streams, three of which train."""
    splits = ["train", "train", "train", "validation", "test", "test"]
    return [f"{number}.npy,{event},{split},10" for number, split in enumerate(splits) for event in events]


def faults(folder: Path) -> list[str]:
    return [str(item) for item in open_source(folder).read() if isinstance(item, Fault)]


def targets(folder: Path, **options: object) -> pd.DataFrame:
    """Of the first stream."""
    prepare(folder, folder.parent / "store", **options)  # type: ignore[arg-type]
    found = open_store(folder.parent / "store").targets
    return found[found["example"] == 0].drop(columns="example")


def test_records(folder: Path) -> None:
    write(folder, ["1.npy,1.5,2,jump,train,10", "1.npy,0,1,run,train,10", "0.npy,,,,test,"])
    source = open_source(folder)
    assert (source.format, source.clips, source.unit, source.classes) == ("events", True, "seconds", ("jump", "run"))
    first, second = source.read()
    assert isinstance(first, Record)
    assert first.events == (Event(0, 1, "run", 3), Event(1.5, 2, "jump", 2))
    assert (first.split, first.rate) == ("train", 10)
    assert isinstance(second, Record)
    assert (second.id, second.events) == ("0.npy", ())


def test_a_start_is_inclusive_and_an_end_exclusive(folder: Path) -> None:
    write(folder, everywhere("0,0.5,run", "0.5,1.2,jump", "2.95,3,run"))
    assert targets(folder).values.tolist() == [[0, 5, "run"], [5, 12, "jump"]]
    assert prepare(folder, folder.parent / "store")["too_short"] == 6  # no frame is between 2.95 s and 3 s


def test_times_that_a_list_rounds(folder: Path) -> None:
    """Frame 17 of 30 a second is at 0.5666... s: written with two to four digits, it stays with its event."""
    for name in "012345":
        write_video(folder / f"{name}.mp4", bar(30, int(name)))
    for written in ("0.567", "0.5667", "0.5666", "0.56667"):
        rows = [
            f"{row.replace('.npy', '.mp4').rsplit(',', 1)[0]},"
            for row in everywhere(f"0,{written},a", f"{written},1,b")
        ]
        write(folder, rows)
        assert targets(folder).values.tolist() == [[0, 17, "a"], [17, 30, "b"]]


def test_frames_instead_of_seconds(folder: Path) -> None:
    write(folder, everywhere("0,5,run", "12,30,jump"), SECONDS.replace("seconds", "frame"))
    assert targets(folder).values.tolist() == [[0, 5, "run"], [12, 30, "jump"]]
    assert targets(folder, rate=5).values.tolist() == [[0, 3, "run"], [6, 15, "jump"]]
    assert targets(folder, rate=20).values.tolist() == [[0, 10, "run"], [24, 60, "jump"]]


def test_the_store_of_streams(folder: Path) -> None:
    write(folder, everywhere("0,0.5,run", "2,3,jump"))
    summary = prepare(folder, folder.parent / "store")
    store = open_store(folder.parent / "store")
    assert (summary["kind"], summary["values"], summary["frames"]) == ("clips", 2, 180)
    assert store.examples["split"].tolist() == ["train", "train", "train", "validation", "test", "test"]
    assert store.targets["value"].cat.categories.tolist() == ["jump", "run"]
    assert store.targets["example"].tolist() == sorted([0, 1, 2, 3, 4, 5] * 2)
    write(folder, everywhere("0,0.6,run", "2,3,jump"))
    assert prepare(folder, folder.parent / "other")["digest"] != summary["digest"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            "0.npy,1,1,run,,10",
            "0.npy has an event that starts at 1 and ends at 1 (events.csv line 3); the end must be later.",
        ),
        (
            "0.npy,2,1,run,,10",
            "0.npy has an event that starts at 2 and ends at 1 (events.csv line 3); the end must be later.",
        ),
        (
            "0.npy,-1,1,run,,10",
            "0.npy has an event from -1 to 1 (events.csv line 3); times begin with 0 at the first frame.",
        ),
        (
            "0.npy,nan,1,run,,10",
            "0.npy has an event from nan to 1 (events.csv line 3); times begin with 0 at the first frame.",
        ),
        (
            "0.npy,1,inf,run,,10",
            "0.npy has an event from 1 to inf (events.csv line 3); times begin with 0 at the first frame.",
        ),
        (
            "0.npy,1s,2s,run,,10",
            "0.npy has an event from '1s' to '2s' (events.csv line 3); both must be numbers of seconds.",
        ),
        ("0.npy,1,,run,,10", "0.npy has an event from '1' to '' (events.csv line 3); both must be numbers of seconds."),
        ("0.npy,1,2,,,10", "0.npy has an event without a label (events.csv line 3)."),
        (
            "0.npy,0.4,2,run,,10",
            "0.npy has events that overlap (events.csv line 3, with line 2): run from 0.4 to 2 and run from 0 to 0.5.",
        ),
        ("0.npy,1,2,run,,20", "0.npy has another rate in line 3 of events.csv than in line 2; it needs one."),
        ("0.npy,1,2,run,train,10", "0.npy has another split in line 3 of events.csv than in line 2; it needs one."),
        ("9.npy,1,2,run,,10", "9.npy is listed but missing (events.csv line 3)."),
        ("../9.npy,1,2,run,,10", "../9.npy is outside the folder (events.csv line 3)."),
        (
            "1.npy,1,2,run,,often",
            "1.npy has the rate 'often' (events.csv line 3); it must be frames per second, above 0.",
        ),
        (",1,2,run,,10", "events.csv line 3 has no path."),
    ],
)
def test_what_is_wrong_with_a_row(folder: Path, row: str, sentence: str) -> None:
    write(folder, ["0.npy,0,0.5,run,,10", row])
    assert sentence in faults(folder)


def test_ends_beyond_the_stream(folder: Path) -> None:
    rows = everywhere("0,0.5,run", "2,3,jump")
    write(folder, [*rows, "0.npy,3,3.2,run,train,10"])
    with pytest.raises(
        InputError, match=r"0\.npy lasts 3\.000 s, but an event ends at 3\.2 s \(events\.csv line 14\)\."
    ):
        prepare(folder, folder.parent / "store")
    assert prepare(folder, folder.parent / "store", skip_bad=True)["count"] == 5
    write(folder, [f"{number}.npy,0,31,run,," for number in range(6)], SECONDS.replace("seconds", "frame"))
    with pytest.raises(InputError, match=r"3\.npy has 30 frames, but an event ends at 31 \(events\.csv line 5\)\."):
        prepare(folder, folder.parent / "store")


def test_parts_of_frames(folder: Path) -> None:
    write(folder, ["0.npy,1.5,2,run,,10"], SECONDS.replace("seconds", "frame"))
    assert faults(folder) == [
        "0.npy has an event from '1.5' to '2' (events.csv line 2); both must be whole numbers of frames."
    ]


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("path,start,end,label", "events.csv line 1 has the unknown column 'start'; columns are path, start_seconds"),
        ("path,start_ms,end_ms,label", "events.csv line 1 has the unknown column 'start_ms'; columns are path,"),
        ("path,start_seconds,end_frame,label", "events.csv line 1 must state times either in seconds or in frames;"),
        ("path,label", "events.csv line 1 must state times either in seconds or in frames;"),
        ("path,start_seconds,end_seconds,start_frame,end_frame,label", "events.csv line 1 must state times either"),
        ("path,start_seconds,end_seconds,label,label", "events.csv line 1 has the column 'label' twice."),
        ("path,start_seconds,end_seconds", "events.csv has no column 'label'; "),
        ("", "events.csv has no column 'path'; it is empty."),
        ("path,start_seconds,end_seconds,label", "events.csv has no events."),
    ],
)
def test_columns(folder: Path, header: str, sentence: str) -> None:
    write(folder, [], header)
    with pytest.raises(InputError) as error:
        open_source(folder)
    assert str(error.value).startswith(sentence)


def test_two_lists_in_one_folder(folder: Path) -> None:
    write(folder, everywhere("0,1,run"))
    (folder / "manifest.csv").write_text("path,label\n0.npy,a\n")
    with pytest.raises(InputError, match=r"has both manifest\.csv and events\.csv; keep the one"):
        open_source(folder)


def test_streams_of_a_group_stay_together_and_every_label_is_in_every_split() -> None:
    """Each stream has some of six labels; four streams a person."""
    draw = np.random.default_rng(0)
    labels = [np.sort(draw.choice(6, 4, replace=False)) for _ in range(48)]
    groups = np.arange(48) // 4
    splits = assign(
        Strata(np.concatenate(labels), np.full(48, 4)),
        np.full(48, -1),
        units_of(hashes(48), groups),
        hashes(48),
        names=tuple("abcdef"),
        validation=0.2,
        test=0.2,
        seed=0,
    )
    assert all(len(set(splits[groups == group])) == 1 for group in range(12))
    for split in (TRAIN, VALIDATION, TEST):
        assert set(np.concatenate([labels[row] for row in np.flatnonzero(splits == split)])) == set(range(6))
    assert np.bincount(splits, minlength=3)[1:].tolist() == [8, 8]
