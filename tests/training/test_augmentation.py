"""Augmentation moves, turns and mirrors; and does nothing where nothing is asked for."""

from typing import Any

import pytest
import torch

from recursight.models.stems import Conv
from recursight.training.augmentation import augment

NONE: dict[str, Any] = {"shift_pixels": 0, "rotate_degrees": 0, "flip": False}


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, height: int = 9, width: int = 9) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 1), dtype=torch.uint8, generator=draw())


def test_nothing_asked_for_is_nothing_done() -> None:
    images = pictures()
    assert augment(images, **NONE, generator=draw()) is images


def test_flip_mirrors_about_half_of_the_images_and_changes_no_pixel() -> None:
    images = pictures(height=5, width=8)
    flipped = augment(images, **(NONE | {"flip": True}), generator=draw())
    fractions = images.float() / 255
    kept = torch.isclose(flipped, fractions, atol=1e-5).flatten(1).all(dim=1)
    mirrored = torch.isclose(flipped, fractions.flip(2), atol=1e-5).flatten(1).all(dim=1)
    assert (kept ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_no_draw_leaves_an_image_between_itself_and_its_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, 0.5))  # the middle of all draws
    images = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3, 1)
    moved = augment(images, shift_pixels=0, rotate_degrees=0, flip=True, generator=torch.Generator())
    torch.testing.assert_close(moved, images / 255)


def test_shift_moves_by_at_most_what_is_asked() -> None:
    images = torch.zeros(200, 11, 15, 1, dtype=torch.uint8)
    images[:, 5, 7] = 255
    moved = augment(images, **(NONE | {"shift_pixels": 2}), generator=draw())[..., 0]
    rows, columns = torch.arange(11.0), torch.arange(15.0)
    mass = moved.sum(dim=(1, 2))
    down = (moved.sum(dim=2) * rows).sum(dim=1) / mass - 5
    right = (moved.sum(dim=1) * columns).sum(dim=1) / mass - 7
    torch.testing.assert_close(mass, torch.ones(200), rtol=1e-3, atol=1e-3)
    for offset in (down, right):
        assert offset.abs().max() <= 2.001
        assert offset.max() > 1.5
        assert offset.min() < -1.5


def test_turning_keeps_distances_in_images_that_are_not_square() -> None:
    images = torch.zeros(200, 21, 31, 1, dtype=torch.uint8)
    images[:, 10, 22] = 255  # seven pixels right of the centre
    turned = augment(images, **(NONE | {"rotate_degrees": 30}), generator=draw())[..., 0]
    rows, columns = torch.arange(21.0) - 10, torch.arange(31.0) - 15
    mass = turned.sum(dim=(1, 2))
    down = (turned.sum(dim=2) * rows).sum(dim=1) / mass
    right = (turned.sum(dim=1) * columns).sum(dim=1) / mass
    torch.testing.assert_close(down.hypot(right), torch.full((200,), 7.0), rtol=0.03, atol=0)
    angles = torch.atan2(down, right).rad2deg()
    assert 25 < angles.abs().max() <= 30.5
    assert angles.min() < -20 < 20 < angles.max()


def test_a_seed_is_a_draw() -> None:
    images, settings = pictures(), {"shift_pixels": 1, "rotate_degrees": 10, "flip": True}
    one, again, other = (augment(images, **settings, generator=draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_of_augmented_images_compute_channels_last(channels: int) -> None:
    images = torch.randint(0, 256, (4, 8, 8, channels), dtype=torch.uint8, generator=draw())
    features = Conv((8, 8, channels), channels=[4, 6])(augment(images, **(NONE | {"flip": True}), generator=draw()))
    assert features.is_contiguous(), "in the other layout, pooling takes several times as long"
