"""Pictures of digits become what MNIST holds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_lightning.data.digit_pictures import image_files, read_images


def _digit(size: tuple[int, int], ink: int, paper: int) -> Image.Image:
    picture = Image.new("L", size, paper)
    picture.paste(ink, (size[0] // 3, size[1] // 5, size[0] // 2, size[1] * 3 // 4))
    return picture


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
def test_size_polarity_and_place(ink: int, paper: int, tmp_path: Path) -> None:
    _digit((90, 120), ink, paper).save(tmp_path / "a.png")
    images, notes = read_images(image_files([str(tmp_path)]))
    pixels = images[0, 0].numpy().astype(float)
    rows = np.nonzero(pixels > 32)[0]
    assert rows.max() - rows.min() + 1 == 20
    centre = [float((pixels.sum(axis=1 - axis) * (np.arange(28) + 0.5)).sum() / pixels.sum()) for axis in (0, 1)]
    assert centre == pytest.approx([14, 14], abs=0.6)
    assert pixels[0, 0] == 0
    assert ("inverted" in notes[0]) == (paper == 255)
    assert "90 x 120 to 28 x 28" in notes[0]


def test_mnists_own_images_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[5:20, 10:14] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images, notes = read_images([tmp_path / "a.png"])
    assert np.array_equal(images[0, 0].numpy(), pixels)
    assert notes == ["as it is"]


def test_transparency_is_paper(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (15, 5, 25, 35))
    picture.save(tmp_path / "a.png")
    images, _ = read_images([tmp_path / "a.png"])
    assert images[0, 0, 0, 0] == 0
    assert images.max() > 200


def _mnist_like() -> np.ndarray:
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[5:20, 10:14], pixels[5:8, 14:20] = 200, 100
    return pixels


@pytest.mark.parametrize(
    ("dtype", "white"),
    [
        ("float32", 1.0),
        ("float32", 255.0),
        ("float32", 65535.0),
        ("uint16", 65535),
        (">u2", 65535),
        ("uint16", 4095),
        ("uint16", 255),
        ("int32", 65535),
    ],
)
def test_grey_values_of_any_width_look_the_same(dtype: str, white: float, tmp_path: Path) -> None:
    expected = _mnist_like()
    values = expected.astype(np.float64) * white / 255
    values = values if dtype == "float32" else values.round()
    Image.fromarray(values.astype(dtype)).save(tmp_path / "a.tif")
    images, notes = read_images([tmp_path / "a.tif"])
    assert np.abs(images[0, 0].numpy().astype(int) - expected).max() <= (0 if white != 4095 else 1)
    assert notes == [f"values from 0 to {white:g} taken as black to white"]


def test_values_beyond_any_usual_white_are_stretched(tmp_path: Path) -> None:
    for name, values in {"negative": _mnist_like() / 100 - 1, "large": _mnist_like() * 1000.0}.items():
        Image.fromarray(values.astype(np.float32)).save(tmp_path / f"{name}.tif")
    images, notes = read_images([tmp_path / "negative.tif", tmp_path / "large.tif"])
    for image in images:
        assert np.array_equal(np.unique(image), [0, 128, 255])
    assert notes[0] == "values from -1 to 1 taken as black to white"


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("1", "tif"), ("P", "gif"), ("CMYK", "tif"), ("LA", "png")])
def test_every_mode_of_a_picture_is_seen(mode: str, suffix: str, tmp_path: Path) -> None:
    bright = Image.fromarray((_mnist_like() > 0).astype(np.uint8) * 255)
    bright.convert(mode).save(tmp_path / f"a.{suffix}")
    images, _ = read_images([tmp_path / f"a.{suffix}"])
    assert np.array_equal(images[0, 0].numpy(), np.array(bright))


def test_a_mask_of_zeros_and_ones_is_seen(tmp_path: Path) -> None:
    Image.fromarray((_mnist_like() > 0).astype(np.uint8)).save(tmp_path / "a.png")
    images, _ = read_images([tmp_path / "a.png"])
    assert np.array_equal(np.unique(images), [0, 255])


def test_what_else_is_said_of_a_picture(tmp_path: Path) -> None:
    first = Image.fromarray(_mnist_like())
    first.save(tmp_path / "several.tif", save_all=True, append_images=[Image.new("L", (28, 28), 255)])
    Image.new("L", (28, 28), 7).save(tmp_path / "blank.png")
    images, notes = read_images([tmp_path / "several.tif", tmp_path / "blank.png"])
    assert np.array_equal(images[0, 0].numpy(), np.array(first))
    assert notes == ["the first of 2 frames", "hardly any contrast"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    values = _mnist_like().astype(np.float32)
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif holds pixels that are not finite numbers"):
        read_images([tmp_path / "a.tif"])


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png is not a readable image"):
        read_images([tmp_path / "a.png"])
    with pytest.raises(FileNotFoundError, match="no image file or folder"):
        image_files([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image"):
        image_files([str(tmp_path / "empty")])
