import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recursight.data.packing import PackWriter
from recursight.data.prepare import prepare
from recursight.data.records import Record
from recursight.data.store import open_store
from recursight.errors import InputError

from .pictures import pictures, png, splits_of, write_folder, write_idx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "source", splits_of(pictures(), False))
    return tmp_path / "source"


def test_embedded_digits(digits_store: Path) -> None:
    store = open_store(digits_store)
    assert store.frames.shape == (1797, 8, 8, 1)
    counts = store.summary["splits"]
    assert counts == {"train": 1222, "validation": 216, "test": 359}
    for name in counts:
        assert set(store.targets_of(store.indices(name))["value"]) == set("0123456789")


def test_mnist(mnist_store: Path) -> None:
    store = open_store(mnist_store)
    assert store.summary["splits"] == {"train": 51_000, "validation": 9_000, "test": 10_000}
    assert store.examples["split"].tolist()[60_000:] == ["test"] * 10_000


def test_mean_and_deviation_are_those_of_the_training_images(digits_store: Path) -> None:
    store = open_store(digits_store)
    pixels = store.frames[store.indices("train")] / 255
    assert store.mean == (pytest.approx(pixels.mean(), abs=1e-6),)
    assert store.std == (pytest.approx(pixels.std(), abs=1e-6),)


def test_deviation_is_never_zero(tmp_path: Path) -> None:
    flat = [(None, name, np.full((2, 2), number, np.uint8)) for number, name in enumerate(["2", "10"] * 20)]
    flat = [(split, name, np.zeros((2, 2), np.uint8) + number % 2) for number, (split, name, _) in enumerate(flat)]
    for number, row in enumerate(flat):
        row[2][0, 0] = number  # or they would all be one image
    write_idx(tmp_path / "source", flat)
    assert min(prepare(tmp_path / "source", tmp_path / "store")["std"]) >= 1 / 255 - 1e-6


def test_digest_changes_with_what_decides_a_training(folder: Path) -> None:
    store = folder.parent / "store"
    first = prepare(folder, store)["digest"]
    assert prepare(folder, store)["digest"] == first
    assert prepare(folder, store, seed=1)["digest"] != first
    assert prepare(folder, store, test=0.4)["digest"] != first
    assert prepare(folder, store, size=(3, 3))["digest"] != first
    (folder / "2" / "0.png").rename(folder / "2" / "000.png")
    assert prepare(folder, store)["digest"] != first


def test_sizes_must_be_one_or_set(folder: Path) -> None:
    (folder / "2" / "0.png").write_bytes(png(np.zeros((9, 9), np.uint8)))
    with pytest.raises(InputError) as error:
        prepare(folder, folder.parent / "store")
    assert "6×5 (39, such as 2/1.png), 9×9 (1, such as 2/0.png)" in str(error.value)
    assert "set prepare.size in params.yaml, such as size: [6, 5]." in str(error.value)
    assert prepare(folder, folder.parent / "store", size=(6, 5))["shape"] == [6, 5, 1]


def test_channels_must_be_one_or_set(folder: Path) -> None:
    (folder / "2" / "0.png").write_bytes(png(np.zeros((6, 5, 3), np.uint8)))
    with pytest.raises(InputError, match=r"39 grey images .*1 RGB images .*set prepare.channels in params.yaml"):
        prepare(folder, folder.parent / "store")
    assert prepare(folder, folder.parent / "store", channels="rgb")["shape"] == [6, 5, 3]


def test_bad_images_and_sizes_are_told_in_one_run(folder: Path) -> None:
    (folder / "2" / "0.png").write_bytes(png(np.zeros((9, 9), np.uint8)))
    (folder / "10" / "39.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"10/39\.png is empty\."):
        prepare(folder, folder.parent / "store")


def test_refusal_leaves_the_old_store(folder: Path) -> None:
    store = folder.parent / "store"
    prepare(folder, store)
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    (folder / "2" / "0.png").write_bytes(b"")
    with pytest.raises(InputError):
        prepare(folder, store)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["source", "store"]


def test_one_image_under_two_labels_is_reported(folder: Path) -> None:
    (folder / "2" / "0.png").write_bytes((folder / "10" / "30.png").read_bytes())
    (folder / "2" / "1.png").write_bytes((folder / "2" / "2.png").read_bytes())  # a copy, but no contradiction
    summary = prepare(folder, folder.parent / "store")
    assert summary["conflicts"] == [["2/0.png", "10/30.png"]]
    assert summary["conflict_count"] == 1


def test_a_copy_of_a_test_image_is_left_out_of_training(tmp_path: Path) -> None:
    rows = splits_of(pictures(), True)
    assert (rows[0][0], rows[-1][0]) == ("train", "test")
    rows.append(("train", rows[-1][1], rows[-1][2]))
    write_folder(tmp_path / "source", rows)
    summary = prepare(tmp_path / "source", tmp_path / "store")
    assert summary["left_out"] == 1
    examples = open_store(tmp_path / "store").examples
    assert examples["split"].value_counts()["left-out"] == 1
    assert (examples[examples["split"] != "left-out"].groupby("sha256")["split"].nunique() == 1).all()
    assert sum(summary["splits"].values()) == 40


def test_a_store_of_an_earlier_version_is_refused(folder: Path) -> None:
    store = folder.parent / "store"
    prepare(folder, store)
    (store / "frames.npy").rename(store / "images.npy")
    with pytest.raises(InputError, match=r"earlier version of recursight: run `dvc repro prepare`\."):
        open_store(store)


def test_a_store_of_other_frames_than_its_list_is_refused(folder: Path) -> None:
    store = folder.parent / "store"
    prepare(folder, store)
    np.save(store / "frames.npy", np.load(store / "frames.npy")[1:])
    with pytest.raises(InputError, match=r"39 frames, but examples.parquet lists 40"):
        open_store(store)


def test_too_few_images_to_split(folder: Path) -> None:
    for path in sorted((folder / "2").iterdir())[2:]:
        path.unlink()
    with pytest.raises(InputError, match=r"'2' \(2\); each needs 3 or more"):
        prepare(folder, folder.parent / "store")


def test_progress_ends_with_everything(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(folder, folder.parent / "store", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (40, 40)
    assert told == sorted(told)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """400 MB of encoded images, and 800 MB of pixels as they are: the interpreter and a few chunks are all it takes."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 500, 500), np.uint8)
    encoded = [png(image) for image in noise]
    (tmp_path / "source").mkdir()
    with PackWriter(tmp_path / "source", ("a", "b")) as writer:
        for number in range(1600):
            writer.append(Record(str(number), "ab"[number % 2], None, str(number % 8), encoded[number % 8]))
    code = (
        "import sys; from pathlib import Path; from recursight.data.prepare import prepare; source = Path(sys.argv[1]);"
        "prepare(source / 'source', source / 'store', size=(300, 300), test=0.25, validation=0.34);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    outcome = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(outcome.stdout) < 400_000  # kB
