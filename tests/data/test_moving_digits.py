"""The made clips and streams hold what their description says, and nothing that gives the answer away."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

from recursight.data import moving_digits
from recursight.data.moving_digits import DIRECTIONS, GRID, WITHIN, places
from recursight.data.prepare import prepare
from recursight.data.published import NAMES, obtain
from recursight.data.store import Store, open_store

CHANCE = 1 / len(DIRECTIONS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """moving-digits, as `recursight data import` and `prepare` make it."""
    folder = tmp_path_factory.mktemp("moving")
    (folder / "source").mkdir()
    obtain("moving-digits", folder / "source", folder)
    prepare(folder / "source", folder / "store")
    return open_store(folder / "store")


def of_split(store: Store, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Clips (N T H W) and classes."""
    rows = store.indices(split)
    length = 2 * GRID * GRID
    clips = store.frames.reshape(-1, length, *store.shape[:2])[rows]
    return clips, store.targets["value"].cat.codes.to_numpy()[rows]


def accuracy(store: Store, features: "callable") -> float:  # type: ignore[valid-type]
    """Of a forest, on the test split."""
    (trained, classes), (tested, truth) = of_split(store, "train"), of_split(store, "test")
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1)
    return float(forest.fit(features(trained), classes).score(features(tested), truth))  # type: ignore[operator]


def corners(clips: np.ndarray) -> np.ndarray:
    """Row and column of the digit's centre of mass in each frame, N T 2: more than a network sees at once."""
    weights = clips.astype(np.float64)
    total = weights.sum(axis=(2, 3))
    down = (weights.sum(axis=3) * np.arange(clips.shape[2])).sum(axis=2) / total
    across = (weights.sum(axis=2) * np.arange(clips.shape[3])).sum(axis=2) / total
    return np.stack([down, across], axis=2)


def test_the_names_are_known() -> None:
    assert {"moving-digits", "moving-digits-events"} <= set(NAMES)


def test_the_store(store: Store) -> None:
    assert store.shape == (32, 32, 1)
    assert (store.examples["frames"] == 32).all()
    assert (store.examples["rate"] == 10).all()
    assert store.examples["split"].value_counts().to_dict() == {"train": 1260, "validation": 270, "test": 270}
    assert store.targets.groupby("value", observed=True).size().tolist() == [200] * 9


def test_the_order_tells_the_class(store: Store) -> None:
    """Most steps of a clip are its direction: counting them is enough."""

    def steps(clips: np.ndarray) -> np.ndarray:
        moved = np.rint(np.diff(corners(clips), axis=1) / moving_digits.STEP).astype(int) % GRID
        numbers = moved[..., 0] * GRID + moved[..., 1]
        return np.stack([np.bincount(row, minlength=GRID * GRID) for row in numbers])

    assert accuracy(store, steps) == 1


def test_one_frame_tells_nothing(store: Store) -> None:
    for frame in (0, 15, 31):
        assert accuracy(store, lambda clips, frame=frame: clips[:, frame].reshape(len(clips), -1)) < CHANCE + 0.08
        assert accuracy(store, lambda clips, frame=frame: corners(clips)[:, frame]) < CHANCE + 0.08


def test_shuffled_frames_tell_nothing(store: Store) -> None:
    draw = np.random.default_rng(0)

    def shuffled(clips: np.ndarray) -> np.ndarray:
        return np.stack([clip[draw.permutation(len(clip))] for clip in clips])

    assert accuracy(store, lambda clips: corners(shuffled(clips)).reshape(len(clips), -1)) < CHANCE + 0.08
    assert accuracy(store, lambda clips: clips.mean(axis=1).reshape(len(clips), -1)) < CHANCE + 0.08


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_class_shows_each_place_twice(direction: str) -> None:
    """So that the frames without their order have one and the same distribution, whatever the class."""
    draw = np.random.default_rng(0)
    for _ in range(20):
        visited = places(direction, draw)
        numbers = visited[:, 0] * GRID + visited[:, 1]
        assert np.bincount(numbers, minlength=GRID * GRID).tolist() == [2] * GRID * GRID
        steps = np.diff(visited, axis=0) % GRID
        expected = np.array(DIRECTIONS[direction]) % GRID
        assert (steps == expected).all(axis=1).sum() >= (16 if direction == "still" else 28)


def test_places_are_uniform_at_every_frame() -> None:
    draw = np.random.default_rng(0)
    for direction in DIRECTIONS:
        visited = np.stack([places(direction, draw) for _ in range(1600)])
        counts = np.stack(
            [np.bincount(frame[:, 0] * GRID + frame[:, 1], minlength=GRID * GRID) for frame in visited.swapaxes(0, 1)]
        )
        assert counts.min() > 50  # of 100 expected
        assert counts.max() < 150


def test_the_same_seed_gives_the_same_pixels(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> list[np.ndarray]:
        (tmp_path / name).mkdir()
        moving_digits.make_streams(tmp_path / name, seed)
        return [np.load(path)["arr_0"] for path in sorted((tmp_path / name).glob("*.npz"))]

    first, second, other = made("first", 0), made("second", 0), made("other", 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert (tmp_path / "first" / "events.csv").read_bytes() == (tmp_path / "second" / "events.csv").read_bytes()


def test_sevens_are_labelled_by_the_last_three() -> None:
    draw = np.random.default_rng(0)
    found = {True: 0, False: 0}
    for _ in range(50):
        shown = moving_digits.schedule(draw)
        labels = [label for *_, label in moving_digits.labelled(shown)]
        for place, (digit, start, _) in enumerate(shown):
            threes = [end - 1 for number, _, end in shown[:place] if number == 3]
            if digit != 7:
                assert labels[place] == "digit"
                continue
            since = start - max(threes, default=-1000)
            follows = since <= WITHIN
            assert since <= WITHIN - 4 or since > WITHIN + 5  # never near the limit
            assert (labels[place] == "three_seven") == follows
            found[follows] += 1
    assert min(found.values()) > 100


def test_the_streams(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    obtain("moving-digits-events", tmp_path / "source", tmp_path)
    summary = prepare(tmp_path / "source", tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert summary["splits"] == {"train": 96, "validation": 24, "test": 24}
    assert (store.shape, len(store.frames)) == ((16, 16, 1), 144 * 400)
    covered = np.zeros(len(store.frames), bool)
    first = store.examples["first_frame"].to_numpy()
    for example, start, end, _ in store.targets.itertuples(index=False):
        covered[first[example] + start : first[example] + end] = True
    np.testing.assert_array_equal(covered, store.frames.any(axis=(1, 2, 3)))
    with (tmp_path / "source" / "events.csv").open() as stream:
        assert next(csv.reader(stream)) == ["path", "start_frame", "end_frame", "label", "split", "rate"]


def test_the_digits_in_streams_are_legible() -> None:
    """A ceiling of 1 needs digits that can be read; those of the test split are none that a training shows."""
    splits = moving_digits._by_split(moving_digits._typical(moving_digits._digits()))

    def of(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = [images.reshape(len(images), -1) for images in splits[split].values()]
        return np.concatenate(images) / 255, np.repeat(np.arange(10), [len(each) for each in images])

    assert SVC().fit(*of("train")).score(*of("test")) == 1
    shown, held_out = of("train")[0], of("test")[0]
    assert not {row.tobytes() for row in shown} & {row.tobytes() for row in held_out}
