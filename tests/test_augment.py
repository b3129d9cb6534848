"""View 0 is the plain image; jitter shifts by whole pixels; views are repeatable."""

import pytest
import torch

from kd_lightning.augment import Affine, Augment, Jitter

IMAGES = torch.rand(25, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_jitter_views_are_all_the_shifts() -> None:
    image = torch.zeros(25, 1, 28, 28)
    image[:, 0, 10, 14] = 1
    moved = Jitter(2)(image, torch.arange(25))
    places = {tuple(m.squeeze(0).nonzero().squeeze(0).tolist()) for m in moved}
    assert places == {(10 + dy, 14 + dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert torch.equal(moved[0], image[0])


@pytest.mark.parametrize("augment", [Jitter(2), Affine(views=25)])
def test_view_zero_is_the_image_and_a_view_is_repeatable(augment: Augment) -> None:
    views = torch.arange(25)
    once = augment(IMAGES, views)
    assert torch.equal(once, augment(IMAGES, views))
    assert torch.equal(once[0], IMAGES[0])
    assert not torch.equal(once[1:], IMAGES[1:])
    assert torch.equal(augment(IMAGES, torch.zeros(25, dtype=torch.int64)), IMAGES)


def test_ranges_are_checked() -> None:
    with pytest.raises(ValueError, match="jitter pixels must be >= 1"):
        Jitter(0)
    with pytest.raises(ValueError, match="affine ranges"):
        Affine(degrees=-1)
    with pytest.raises(ValueError, match="views must be >= 2"):
        Affine(views=1)
