"""Folders of clips: what is recognised as clips, and what `prepare` makes of it."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recursight.data.prepare import prepare
from recursight.data.readers import open_source
from recursight.data.records import Fault, Record
from recursight.data.store import Store, open_store
from recursight.errors import InputError

from .clip_files import HEIGHT, KINDS, WIDTH, bar, left_edges, write_npy, write_numbered, write_video


def clip_of(label: str, number: int, frames: int = 12) -> np.ndarray:
    """A clip that no other equals."""
    frames_of = bar(frames, number)
    return frames_of if label == "right" else frames_of[::-1].copy()


def write_classes(folder: Path, name: str = "clip.npy", per_class: int = 8, splits: tuple[str, ...] = ("",)) -> None:
    """Class folders of clips of one kind."""
    for split in splits:
        for label in ("left", "right"):
            for number in range(per_class):
                stem, dot, suffix = name.partition(".")
                path = folder / split / label / f"{stem}-{number}{dot}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                KINDS[name](path, clip_of(label, number + 10 * splits.index(split), 12 + number))


def write_list(folder: Path, rows: list[dict[str, object]], name: str = "manifest.csv") -> None:
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def made(folder: Path, **options: object) -> tuple[Store, dict[str, object]]:
    summary = prepare(folder, folder.parent / "store", **options)  # type: ignore[arg-type]
    return open_store(folder.parent / "store"), summary


def clip_in(store: Store, row: int) -> np.ndarray:
    first, frames = store.examples.loc[row, ["first_frame", "frames"]]
    return store.frames[first : first + frames]


@pytest.mark.parametrize("name", KINDS)
def test_class_folders_of_every_kind(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / "source", name)
    source = open_source(tmp_path / "source")
    assert (source.clips, source.classes, source.count) == (True, ("left", "right"), 16)
    store, summary = made(tmp_path / "source")
    assert (summary["kind"], summary["window"], store.stills) == ("clips", None, False)
    assert store.shape == (HEIGHT, WIDTH, 3)
    assert store.examples["frames"].tolist() == 2 * list(range(12, 20))
    assert (
        store.examples["first_frame"].tolist()
        == (store.examples["frames"].cumsum() - store.examples["frames"]).tolist()
    )
    assert (
        store.examples["rate"] == (30 if name.rpartition(".")[2] in ("mp4", "mov", "avi", "mkv", "webm") else 25)
    ).all()
    assert store.targets["end_frame"].tolist() == store.examples["frames"].tolist()
    assert store.targets["value"].tolist() == ["left"] * 8 + ["right"] * 8
    for row, label, number in ((0, "left", 0), (7, "left", 7), (10, "right", 2)):
        expected = left_edges(clip_of(label, number, 12 + number))
        np.testing.assert_allclose(left_edges(clip_in(store, row)), expected, atol=1)


def test_split_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", splits=("train", "val", "test"))
    store, _ = made(tmp_path / "source")
    assert store.examples["split"].value_counts().to_dict() == {"train": 16, "validation": 16, "test": 16}


def test_kinds_may_differ_within_a_source(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.gif", "clip.npy"):
        write_classes(tmp_path / "source", name, per_class=4)
    store, _ = made(tmp_path / "source")
    assert len(store.examples) == 24


def test_animations_are_clips_only_if_all_images_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.gif")
    source = open_source(tmp_path / "source")
    assert source.clips
    assert source.assumption.startswith("Every image has several frames, such as left/clip-0.gif")
    Image.fromarray(bar(1)[0]).save(tmp_path / "source" / "right" / "still.gif")
    source = open_source(tmp_path / "source")
    assert not source.clips
    store, _ = made(tmp_path / "source", channels="rgb")
    assert store.stills
    assert len(store.examples) == 17


def test_videos_beside_stills_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4", per_class=2)
    Image.fromarray(bar(1)[0]).save(tmp_path / "source" / "right" / "still.jpg")
    with pytest.raises(InputError, match=r"left/clip-0.mp4 is a clip, but right/still.jpg is a still image; import "):
        open_source(tmp_path / "source")


def test_folders_of_images_are_clips_only_if_all_are_numbered(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip")
    source = open_source(tmp_path / "source")
    assert source.clips
    assert source.assumption == "Folders of numbered frames, such as left/clip-0/, were read as one clip each."
    frames = sorted((tmp_path / "source" / "left" / "clip-0").iterdir())
    frames[3].rename(frames[3].with_name("portrait.png"))
    source = open_source(tmp_path / "source")
    assert (source.clips, source.count) == (False, 2 * sum(range(12, 20)))


def test_arrays_beside_images_do_not_belong_to_the_data(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.npy", per_class=1)
    Image.fromarray(bar(1)[0]).save(tmp_path / "source" / "left" / "still.png")
    source = open_source(tmp_path / "source")
    assert not source.clips
    assert source.ignored == ("left/clip-0.npy", "right/clip-0.npy")


def test_manifest_of_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    rows: list[dict[str, object]] = []
    for number in range(12):
        label = ("left", "right")[number % 2]
        name = f"{number}.mp4" if number < 6 else f"frames/{number}"
        write = write_video if number < 6 else write_numbered
        write(folder / name, clip_of(label, number))
        rate = "" if number < 6 else 30
        rows.append({"path": name, "label": label, "split": "", "group": f"p{number // 2}", "rate": rate})
    write_list(folder, rows)
    store, _ = made(folder)
    assert (store.examples["rate"] == 30).all()
    assert (store.examples.groupby("group")["split"].nunique() == 1).all()
    assert set(store.examples["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("rate", ["fast", "0", "-3", "nan", "1e9"])
def test_impossible_rates(tmp_path: Path, rate: str) -> None:
    write_npy(tmp_path / "a.npy", bar())
    write_list(tmp_path, [{"path": "a.npy", "label": "left", "rate": rate}])
    (fault,) = open_source(tmp_path).read()
    assert str(fault) == f"a.npy has the rate {rate!r} (manifest.csv line 2); it must be frames per second, above 0."


def test_validation_is_whole_people(tmp_path: Path) -> None:
    """27 classes of three people who train, and others who test, as in UTD-MHAD."""
    rows: list[dict[str, object]] = []
    for person in range(1, 7):
        for kind in range(27):
            for trial in range(2):
                name = f"a{kind}_s{person}_t{trial}.npy"
                write_npy(tmp_path / "source" / name, np.array([[[person]], [[kind]], [[trial]]], np.uint8))
                split = "train" if person % 2 else "test"
                rows.append({"path": name, "label": f"action {kind}", "split": split, "group": f"person {person}"})
    write_list(tmp_path / "source", rows)
    for seed in range(3):
        store, _ = made(tmp_path / "source", seed=seed)
        people = store.examples.groupby("split")["group"].unique()
        assert sorted(people["test"]) == ["person 2", "person 4", "person 6"]
        assert len(people["validation"]) == 1
        assert len(people["train"]) == 2
        assert (store.examples.groupby("group")["split"].nunique() == 1).all()


def test_rates_crop_and_size(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4", per_class=4)
    store, _ = made(tmp_path / "source", rate=15, crop=(0, 0, 16, 24), size=(8, 12), channels="grey", window=0.4)
    assert store.shape == (8, 12, 1)
    assert store.examples["frames"].tolist() == 2 * [6, 7, 7, 8]
    assert (store.examples["rate"] == 15).all()
    assert store.summary["window"] == {"frames": 6, "overlap": 3}
    other, _ = made(tmp_path / "source", rate=15, crop=(0, 0, 16, 24), size=(8, 12), channels="grey")
    assert other.digest != store.digest


def test_a_window_needs_one_rate(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4", per_class=4)
    write_classes(tmp_path / "source", "clip.npy", per_class=4)
    with pytest.raises(
        InputError, match=r"2 rates \(25, 30 frames per second\).*set prepare.frames.rate in params.yaml"
    ):
        made(tmp_path / "source", window=1.0)
    assert made(tmp_path / "source", window=1.0, rate=10)[1]["window"] == {"frames": 10, "overlap": 5}


def test_options_of_clips_are_refused_for_stills(tmp_path: Path) -> None:
    for number in range(3):
        for label in ("a", "b"):
            path = tmp_path / "source" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(clip_of(label, number)[number]).save(path)
    with pytest.raises(InputError, match=r"prepare\.frames in params\.yaml is for clips, but data/ has stills"):
        made(tmp_path / "source", rate=15)


def test_sizes_must_be_one_or_set(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", per_class=4)
    np.save(tmp_path / "source" / "left" / "large.npy", np.zeros((5, 99, 99, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"the clips have 2 sizes: 32×48 \(8, such as left/clip-0.npy\), 99×99 \(1, such"
    ):
        made(tmp_path / "source")
    assert made(tmp_path / "source", size=(16, 16))[0].shape == (16, 16, 3)


def test_every_bad_clip_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    """The frames of those behind a skipped one move up."""
    folder = tmp_path / "source"
    write_classes(folder, "clip.mkv")
    whole = (folder / "left" / "clip-2.mkv").read_bytes()
    (folder / "left" / "clip-2.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "left" / "clip-4.mkv").write_bytes(b"")
    (folder / "right" / "clip-0.mkv").write_bytes(b"no video")
    noise = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH, 3), np.uint8)
    (folder / "left" / "clip-3.mkv").unlink()
    write_video(folder / "left" / "clip-3.mp4", noise)
    damaged = bytearray((folder / "left" / "clip-3.mp4").read_bytes())
    begin = damaged.index(b"mdat") + 4
    middle = slice(begin + (len(damaged) - begin) // 2, begin + (len(damaged) - begin) // 2 + 2000)
    damaged[middle] = b"\xff" * 2000  # the headers are right: found out when it is decoded
    (folder / "left" / "clip-3.mp4").write_bytes(damaged)
    with pytest.raises(InputError) as error:
        made(folder)
    sentence = str(error.value)
    assert "the data has 4 errors; nothing was changed. Fix them, or skip the bad clips with " in sentence
    assert "left/clip-2.mkv " in sentence
    assert "left/clip-3.mp4 is damaged after frame" in sentence
    assert "left/clip-4.mkv is empty." in sentence
    assert "right/clip-0.mkv is neither a video nor an animation that can be decoded." in sentence
    assert not (tmp_path / "store").exists()
    store, summary = made(folder, skip_bad=True)
    assert len(summary["skipped"]) == 4  # type: ignore[arg-type]
    for row, example in store.examples.iterrows():
        label, number = example["id"].split("/")[0], int(example["id"][-5])
        expected = left_edges(clip_of(label, number, 12 + number))
        np.testing.assert_allclose(left_edges(clip_in(store, row)), expected, atol=1)  # type: ignore[arg-type]


def test_listed_twice(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", per_class=4)
    paths = sorted(path.relative_to(tmp_path / "source").as_posix() for path in (tmp_path / "source").glob("*/*"))
    rows: list[dict[str, object]] = [{"path": path, "label": path.split("/")[0]} for path in [*paths, paths[0]]]
    write_list(tmp_path / "source", rows)
    with pytest.raises(InputError, match=r"left/clip-0\.npy is listed twice\."):
        made(tmp_path / "source")
    store, _ = made(tmp_path / "source", skip_bad=True)
    assert len(store.frames) == 2 * (12 + 13 + 14 + 15)


def test_copies_with_other_labels_are_reported(tmp_path: Path) -> None:
    write_classes(tmp_path / "source")
    (tmp_path / "source" / "right" / "copy.npy").write_bytes((tmp_path / "source" / "left" / "clip-1.npy").read_bytes())
    _, summary = made(tmp_path / "source")
    assert summary["conflicts"] == [["left/clip-1.npy", "right/copy.npy"]]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4", per_class=4)
    for name in ("first", "second"):
        prepare(tmp_path / "source", tmp_path / name, rate=20, size=(16, 24))
    for name in ("frames.npy", "examples.parquet", "targets.parquet", "statistics.parquet", "store.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_mean_and_statistics_are_those_of_all_frames(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", per_class=4)
    store, _ = made(tmp_path / "source", channels="grey")
    rows = store.indices("train")
    frames = np.concatenate([clip_in(store, row) for row in rows]) / 255
    assert store.mean == (pytest.approx(frames.mean(), abs=1e-6),)
    assert store.std == (pytest.approx(frames.std(), abs=1e-6),)
    brightness = pd.read_parquet(tmp_path / "store" / "statistics.parquet")["brightness"]
    assert brightness[5] == pytest.approx(clip_in(store, 5).mean() / 255, abs=1e-6)


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    for name, listing in (("clips", "manifest.csv"), ("streams", "events.csv")):
        write_npy(tmp_path / "all" / "set" / name / "a.npy", bar())
        (tmp_path / "all" / "set" / name / listing).write_text("path,label,start_frame,end_frame\na.npy,left,0,3\n")
    with pytest.raises(InputError) as error:
        open_source(tmp_path / "all")
    assert str(error.value) == (
        "set/ contains 2 data sets: set/clips, set/streams; import one of them, such as "
        "`recursight data import SOURCE --folder set/clips`."
    )
    (record,) = open_source(tmp_path / "all" / "set" / "clips").read()
    assert isinstance(record, Record)


def test_link_that_leaves_the_folder(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4", per_class=1)
    (tmp_path / "source" / "left" / "clip-0.mp4").rename(tmp_path / "secret.mp4")
    (tmp_path / "source" / "left" / "clip-0.mp4").symlink_to(tmp_path / "secret.mp4")
    faults = [str(item) for item in open_source(tmp_path / "source").read() if isinstance(item, Fault)]
    assert faults == ["left/clip-0.mp4 is a link that points outside the folder."]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_length_of_a_stream(tmp_path: Path) -> None:
    """Three streams whose pixels take 690 MB each, in full colour."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for number, split in enumerate(("train", "validation", "test")):
        frames = np.broadcast_to(np.roll(noise, number, axis=2), (3000, *noise.shape))
        write_video(tmp_path / "source" / f"{split}.mp4", frames, "mpeg4")
    rows = [f"{split}.mp4,1,90,x,{split}" for split in ("train", "validation", "test")]
    (tmp_path / "source" / "events.csv").write_text("\n".join(["path,start_seconds,end_seconds,label,split", *rows]))
    code = (
        "import sys; from pathlib import Path; from recursight.data.prepare import prepare; source = Path(sys.argv[1]);"
        "prepare(source / 'source', source / 'store');"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    outcome = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(outcome.stdout) < 400_000  # kB
