"""View 0 is the plain image; jitter shifts by whole pixels; views are repeatable."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from kd_lightning.data.augment import Affine, Augment, CropMirror, Elastic, Jitter

IMAGES = torch.rand(25, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_jitter_views_are_all_the_shifts() -> None:
    image = torch.zeros(25, 1, 28, 28)
    image[:, 0, 10, 14] = 1
    moved = Jitter(2)(image, torch.arange(25))
    places = {tuple(m.squeeze(0).nonzero().squeeze(0).tolist()) for m in moved}
    assert places == {(10 + dy, 14 + dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert torch.equal(moved[0], image[0])
    nearest = {tuple(m.squeeze(0).nonzero().squeeze(0).tolist()) for m in moved[:9]}
    assert nearest == {(10 + dy, 14 + dx) for dy in range(-1, 2) for dx in range(-1, 2)}


@pytest.mark.parametrize("augment", [Jitter(2), Affine(views=25), Elastic(views=25), CropMirror(2)])
def test_view_zero_is_the_image_and_a_view_is_repeatable(augment: Augment) -> None:
    views = torch.arange(25)
    once = augment(IMAGES, views)
    assert torch.equal(once, augment(IMAGES, views))
    assert torch.equal(once[0], IMAGES[0])
    assert not torch.equal(once[1:], IMAGES[1:])
    assert torch.equal(augment(IMAGES, torch.zeros(25, dtype=torch.int64)), IMAGES)


COLOUR = torch.randint(256, (400, 3, 6, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pixels", "count"), [(0, 2), (1, 18), (4, 162)])
def test_crop_and_mirror_are_every_shift_in_both_directions(pixels: int, count: int) -> None:
    augment = CropMirror(pixels)
    assert augment.view_count == count
    shown = augment(COLOUR[:1].expand(count, -1, -1, -1), torch.arange(count))
    padded = np.pad(COLOUR[0].numpy(), [(0, 0), (pixels, pixels), (pixels, pixels)])
    wanted = set()
    for top in range(2 * pixels + 1):
        for left in range(2 * pixels + 1):
            window = padded[:, top : top + 6, left : left + 9]
            wanted |= {window.tobytes(), window[..., ::-1].tobytes()}
    assert {each.numpy().tobytes() for each in shown} == wanted
    assert len(wanted) == count


@pytest.mark.parametrize("augment", [Jitter(2), CropMirror(4), CropMirror(3, views=10, seed=1)])
def test_bytes_move_as_their_shares_do(augment: Augment) -> None:
    views = torch.randint(augment.view_count, (400,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(COLOUR, views).float() / 255, augment(COLOUR.float() / 255, views))
    last = COLOUR.float().contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(last, views), augment(COLOUR.float(), views))


def test_some_views_are_the_first_of_all() -> None:
    every, some = CropMirror(2, seed=3), CropMirror(2, views=7, seed=3)
    views = torch.arange(7)
    assert some.view_count == 7
    assert torch.equal(every(COLOUR[:7], views), some(COLOUR[:7], views))
    assert torch.equal(some(COLOUR[:1], views[:1]), COLOUR[:1])
    assert not torch.equal(CropMirror(2, views=7, seed=4)(COLOUR[:7], views), some(COLOUR[:7], views))


def test_elastic_takes_pictures_of_any_size() -> None:
    augment = Elastic(degrees=0, scale=0, shear=0, pixels=0, views=50)
    for shape in ((20, 44), (44, 20)):
        ramps = torch.stack(torch.meshgrid(*[torch.arange(float(side)) for side in shape], indexing="ij"))
        moved = augment(ramps.expand(50, -1, -1, -1), torch.arange(50)) - ramps  # down and right, in pixels
        inner = moved[1:, :, 6:-6, 6:-6]
        for axis in (0, 1):
            assert float(inner[:, axis].square().mean().sqrt()) == pytest.approx(1.4, rel=0.15)
    with pytest.raises(ValueError, match="elastic side is 28, got images of 20 x 44; leave side out"):
        Elastic(side=28, views=2)(torch.zeros(2, 1, 20, 44), torch.arange(2))


def test_elastic_moves_digits_as_it_always_did() -> None:
    """Teachers' logits are stored for the views of before."""
    moved = Elastic(views=64, seed=5)(IMAGES, torch.arange(25) + 30)
    assert float(moved.double().sum()) == pytest.approx(8493.56784887, rel=1e-6)


def test_ranges_are_checked() -> None:
    with pytest.raises(ValueError, match="crop pixels must be >= 0, got -1"):
        CropMirror(-1)
    with pytest.raises(ValueError, match="crop and mirror views must be from 2 to 18 for 1 pixels, got 19"):
        CropMirror(1, views=19)
    with pytest.raises(ValueError, match="jitter pixels must be >= 1"):
        Jitter(0)
    with pytest.raises(ValueError, match="affine ranges"):
        Affine(degrees=-1)
    with pytest.raises(ValueError, match="views must be >= 2"):
        Affine(views=1)
    with pytest.raises(ValueError, match="elastic strength must be >= 0 and sigma > 0"):
        Elastic(sigma=0)
    with pytest.raises(ValueError, match="affine ranges must be finite and >= 0"):
        Affine(degrees=math.nan)
    with pytest.raises(ValueError, match=r"elastic strength .* both finite"):
        Elastic(strength=math.inf)


@pytest.mark.parametrize("augment", [Jitter(40), Affine(pixels=28, views=2)])
def test_shifts_out_of_sight_are_refused(augment: Augment) -> None:
    with pytest.raises(ValueError, match=r"pixels must be below the images' side, got (40|28) for images of 28 x 28"):
        augment(IMAGES, torch.ones(25, dtype=torch.int64))


def test_affine_agrees_with_scipy() -> None:
    image = torch.rand(28, 28, generator=torch.Generator().manual_seed(1))
    augment = Affine(degrees=20, scale=0.2, shear=0.15, pixels=3, views=8, seed=5)
    turn, size, lean, right, down = (torch.rand(5, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1).numpy()
    middle = 13.5
    y, x = np.mgrid[0:28, 0:28] - middle
    for view in range(1, 8):
        angle = np.deg2rad(turn[view] * 20)
        factor, shear = 1 + size[view] * 0.2, lean[view] * 0.15
        sheared = x + shear * y
        source_x = (np.cos(angle) * sheared - np.sin(angle) * y) / factor + right[view] * 3
        source_y = (np.sin(angle) * sheared + np.cos(angle) * y) / factor + down[view] * 3
        expected = ndimage.map_coordinates(image.numpy(), [source_y + middle, source_x + middle], order=1)
        ours = augment(image.view(1, 1, 28, 28), torch.tensor([view]))[0, 0].numpy()
        inside = (np.abs(source_x) < middle) & (np.abs(source_y) < middle)
        np.testing.assert_allclose(ours[inside], expected[inside], atol=1e-4)


def test_elastic_moves_each_pixel_smoothly_by_the_given_strength() -> None:
    ramp = torch.arange(28.0).expand(200, 1, 28, 28)  # its value tells the source's column
    augment = Elastic(strength=1.4, sigma=4.0, degrees=0, scale=0, shear=0, pixels=0, views=200)
    moved = augment(ramp, torch.arange(200))
    inner = (moved - ramp)[1:, :, 6:-6, 6:-6]  # the edge has sources outside the image
    assert float(inner.square().mean().sqrt()) == pytest.approx(1.4, rel=0.15)
    step = (inner[..., 1:] - inner[..., :-1]).square().mean().sqrt()
    # A field smoothed by a Gaussian has slopes of strength / (sigma * sqrt(2)).
    assert float(step) == pytest.approx(1.4 / (4 * 2**0.5), rel=0.2)
    straight = Elastic(strength=0.0, views=200)(IMAGES, torch.arange(25))
    torch.testing.assert_close(straight, Affine(views=200)(IMAGES, torch.arange(25)))
