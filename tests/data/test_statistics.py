"""Figures of images: what they mean, and that they are exact."""

import numpy as np
import pandas as pd
import pytest

from recursight.data.prepare import prepare
from recursight.data.statistics import CHUNK_BYTES, image_statistics
from recursight.data.store import open_store

GREY = {"brightness", "contrast", "dark", "bright", "edges_across", "edges_down"}
FORM = {"centre_x", "centre_y", "upright", "slant"}


def figures(image: np.ndarray) -> dict[str, float]:
    """Of one grey image H × W."""
    return {name: float(value[0]) for name, value in image_statistics(image[None, :, :, None]).items()}


def picture(height: int = 9, width: int = 9) -> np.ndarray:
    return np.zeros((height, width), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_figure_does_not_depend_on_the_batch(channels):
    shape = (3 * CHUNK_BYTES // (28 * 28 * channels) + 5, 28, 28, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    together = image_statistics(images)
    assert set(together) == GREY | FORM | ({"colour"} if channels == 3 else set())
    for place in (0, 7, len(images) - 1):
        alone = image_statistics(images[place : place + 1])
        for name, values in together.items():
            assert values.dtype == np.float32
            assert values.shape == (len(images),)
            assert values[place] == alone[name][0], name


def test_no_images_have_no_figures():
    assert {len(values) for values in image_statistics(np.empty((0, 28, 28, 1), np.uint8)).values()} == {0}


def test_light_is_on_the_scale_0_to_1():
    black, white = figures(picture()), figures(picture() + 255)
    assert (black["brightness"], black["dark"], black["bright"], black["contrast"]) == (0, 1, 0, 0)
    assert (white["brightness"], white["dark"], white["bright"], white["contrast"]) == (1, 0, 1, 0)
    half = picture(4, 4)
    half[:2] = 255
    assert figures(half)["brightness"] == 0.5
    assert figures(half)["contrast"] == 0.5


def test_inversion_is_seen():
    image = np.random.default_rng(0).integers(0, 100, (8, 8), dtype=np.uint8)
    before, after = figures(image), figures(255 - image)
    assert after["brightness"] == pytest.approx(1 - before["brightness"])
    assert after["contrast"] == pytest.approx(before["contrast"])
    assert after["edges_across"] == before["edges_across"]


def test_edges_tell_rows_from_columns():
    image = picture(8, 8)
    image[:, 4:] = 255  # one step in each row
    assert figures(image)["edges_across"] == pytest.approx(1 / 7)
    assert figures(image)["edges_down"] == 0
    assert figures(image.T)["edges_down"] == pytest.approx(1 / 7)


def test_form_is_seen():
    stroke = picture()
    stroke[1:8, 4] = 255
    assert figures(stroke)["upright"] == 1
    assert figures(stroke.T)["upright"] == -1
    assert figures(np.eye(9, dtype=np.uint8) * 255)["slant"] == pytest.approx(1)
    assert figures(np.eye(9, dtype=np.uint8)[:, ::-1] * 255)["slant"] == pytest.approx(-1)
    corner = picture()
    corner[0, 8] = 255
    assert figures(corner)["centre_x"] == pytest.approx(8 / 9)
    assert figures(corner)["centre_y"] == pytest.approx(-8 / 9)


def test_black_and_single_pixels_are_no_exception():
    for image in (picture(), picture(1, 1), picture(1, 1) + 7, picture(1, 5), picture(5, 1)):
        assert np.isfinite(list(figures(image).values())).all()


def test_colour_is_the_distance_of_channels():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[..., 1] = 255
    found = image_statistics(image)
    assert found["colour"][0] == 1
    assert found["brightness"][0] == pytest.approx(1 / 3)
    assert image_statistics(np.full((1, 4, 4, 3), 90, np.uint8))["colour"][0] == 0


def test_the_store_has_the_figures_of_its_images(digits_store):
    store = open_store(digits_store)
    written = pd.read_parquet(digits_store / "statistics.parquet")
    assert len(written) == len(store.examples)
    for name, values in image_statistics(store.frames).items():
        assert (written[name].to_numpy() == values).all(), name


def test_the_same_images_give_the_same_file(digits, digits_store, tmp_path):
    prepare(digits, tmp_path / "again")
    again = (tmp_path / "again" / "statistics.parquet").read_bytes()
    assert again == (digits_store / "statistics.parquet").read_bytes()
