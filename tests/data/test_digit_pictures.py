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


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png is not a readable image"):
        read_images([tmp_path / "a.png"])
    with pytest.raises(FileNotFoundError, match="no image file or folder"):
        image_files([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image"):
        image_files([str(tmp_path / "empty")])
