"""Augmentation as a numbered list of fixed transforms, applied to a whole batch on its device.

Every transform of a family has a number, its view; view 0 leaves the image as it is. Which view an example
gets in an epoch is the loader's choice, so that teacher and student can see the very same images.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur


class Augment(ABC):
    """A family of `view_count` image transforms, numbered from 0 (no change).

    Attributes:
        view_count: Number of transforms, the identity included.
        only_moves: Whether it moves pixels and leaves their values; it then takes images of any number type.
    """

    view_count: int
    only_moves: bool = False

    def __call__(self, images: Tensor, views: Tensor) -> Tensor:
        """Transform each image by its own view.

        Args:
            images: (batch, channels, height, width) float, in [0, 1].
            views: (batch,) int64, in [0, view_count).

        Returns:
            Images of the same shape; those of view 0 are unchanged, bit for bit.
        """
        if self.only_moves:
            return self.transform(images, views)
        return torch.where((views == 0).view(-1, 1, 1, 1), images, self.transform(images, views))

    @abstractmethod
    def transform(self, images: Tensor, views: Tensor) -> Tensor:
        """Transform each image by its own view; the caller restores view 0, unless the family only moves pixels."""


class Jitter(Augment):
    """Shifts by whole pixels, up to `pixels` in each direction; what moves in is 0.

    Hinton et al. 2015, section 3, jittered the teacher's images by up to two pixels.

    Args:
        pixels: Largest shift along each axis, >= 1 and below the images' side; there are (2 * pixels + 1)^2 views.
    """

    only_moves = True

    def __init__(self, pixels: int = 2) -> None:
        if pixels < 1:
            raise ValueError(f"jitter pixels must be >= 1, got {pixels}")
        self._set_shifts(pixels)

    def _set_shifts(self, pixels: int) -> None:
        self.pixels = pixels
        shifts = torch.cartesian_prod(*[torch.arange(-pixels, pixels + 1)] * 2)  # (views, 2)
        # Sorted by size, starting with no shift: the first nine views shift by at most one pixel.
        shifts = shifts[shifts.abs().max(dim=1).values.argsort(stable=True)]
        self.view_count = len(shifts)
        self._top, self._left = (shifts + pixels).T.contiguous()

    def transform(self, images: Tensor, views: Tensor) -> Tensor:
        """Cut each image's window out of the padded batch.

        Raises:
            ValueError: If an image would be shifted out of sight.
        """
        top, left = self._top.to(views.device)[views], self._left.to(views.device)[views]
        return _windows(images, torch.arange(len(images), device=views.device), top, left, self.pixels)


def _windows(images: Tensor, chosen: Tensor, top: Tensor, left: Tensor, pixels: int) -> Tensor:
    """A window of the images' own size out of each chosen image, padded by this many pixels of 0.

    Args:
        images: (count, channels, height, width).
        chosen: (batch,) int64, numbers of images.
        top: (batch,) int64, where the window begins in the padded image.
        left: (batch,) int64, likewise.
        pixels: Of padding on each side.
    """
    count, channels, height, width = images.shape
    _check_shift(pixels, height, width)
    padded = F.pad(images, [pixels] * 4).contiguous()
    size, plane, row, _ = padded.stride()
    # Every window of an image's size in the same memory, by the place where it begins; reading whole windows takes
    # two thirds of the time of an index per pixel.
    last = (count - 1) * size + 2 * pixels * (row + 1)
    windows = padded.as_strided((last + 1, channels, height, width), (1, plane, row, 1))
    return windows.index_select(0, chosen * size + top * row + left)


def _check_shift(pixels: float, height: int, width: int) -> None:
    if pixels >= min(height, width):
        raise ValueError(f"pixels must be below the images' side, got {pixels:g} for images of {height} x {width}")


class CropMirror(Jitter):
    """Shifts by whole pixels and mirroring left to right, each with each; what moves in is 0.

    The usual transform of small colour pictures: a random crop of the padded picture, and a mirror at random.

    Args:
        pixels: Largest shift along each axis, >= 0 and below the images' side; 0 for mirroring only.
        views: Number of different transforms, the identity included; by default all 2 * (2 * pixels + 1)^2, 162 for
            4 pixels. Fewer are drawn once, and take fewer passes of a teacher whose logits are stored.
        seed: Seed of the draw.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, pixels: int = 4, views: int | None = None, seed: int = 0) -> None:
        if pixels < 0:
            raise ValueError(f"crop pixels must be >= 0, got {pixels}")
        self._set_shifts(pixels)
        every = 2 * self.view_count
        if views is not None and not 2 <= views <= every:
            raise ValueError(f"crop and mirror views must be from 2 to {every} for {pixels} pixels, got {views}")
        order = torch.randperm(every - 1, generator=torch.Generator().manual_seed(seed)) + 1  # without the identity
        chosen = torch.cat([torch.zeros(1, dtype=torch.int64), order])[:views]
        self.views, self.seed = views, seed
        self.view_count = len(chosen)
        self._mirrored = chosen % 2 == 1
        self._top, self._left = self._top[chosen // 2], self._left[chosen // 2]

    def transform(self, images: Tensor, views: Tensor) -> Tensor:
        """Shift each image, then mirror it.

        Raises:
            ValueError: If an image would be shifted out of sight.
        """
        top, left = self._top.to(views.device)[views], self._left.to(views.device)[views]
        mirrored = self._mirrored.to(views.device)[views]
        # Cut out of both, each image and its mirror image: half the time of a torch.where over what was cut.
        chosen = torch.arange(len(images), device=views.device) + len(images) * mirrored
        both = torch.cat([images, images.flip(-1)])
        return _windows(both, chosen, top, torch.where(mirrored, 2 * self.pixels - left, left), self.pixels)


class Affine(Augment):
    """Random rotation, scale, shear and shift with bilinear sampling, drawn once per view.

    Args:
        degrees: Largest rotation, in degrees.
        scale: Largest relative change of size; 0.1 gives factors from 0.9 to 1.1.
        shear: Largest shear, a factor of the height.
        pixels: Largest shift along each axis, in pixels, below the images' side.
        views: Number of different transforms, >= 2, the identity included.
        seed: Seed of the draw.
    """

    def __init__(
        self,
        degrees: float = 12.0,
        scale: float = 0.1,
        shear: float = 0.1,
        pixels: float = 2.0,
        views: int = 4096,
        seed: int = 0,
    ) -> None:
        ranges = (degrees, scale, shear, pixels)
        if not all(0 <= value < math.inf for value in ranges) or scale >= 1:
            raise ValueError(
                f"affine ranges must be finite and >= 0, and scale < 1, "
                f"got degrees={degrees}, scale={scale}, shear={shear}, pixels={pixels}"
            )
        if views < 2:
            raise ValueError(f"affine views must be >= 2, got {views}")
        self.degrees, self.scale, self.shear, self.pixels = ranges
        self.views, self.seed = views, seed
        self.view_count = views
        uniform = torch.rand(5, views, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        angle = uniform[0] * degrees * torch.pi / 180
        factor, skew = 1 + uniform[1] * scale, uniform[2] * shear
        shift = uniform[3:] * pixels
        cos, sin = angle.cos() / factor, angle.sin() / factor
        matrices = torch.stack([cos, cos * skew - sin, sin, sin * skew + cos], dim=1).view(views, 2, 2)
        self._matrices = matrices
        self._shift = shift.T  # (views, 2), in pixels
        self._made: Tensor | None = None

    def transform(self, images: Tensor, views: Tensor) -> Tensor:
        """Sample each image at the points that its view maps the pixels to."""
        return F.grid_sample(images, self._grid(images)[views].to(images.dtype), align_corners=False)

    def _grid(self, images: Tensor) -> Tensor:
        """The sampling points of every view, (views, height, width, 2), kept since they take most of a batch's time."""
        height, width = images.shape[-2:]
        if self._made is None or self._made.shape[1:3] != (height, width) or self._made.device != images.device:
            _check_shift(self.pixels, height, width)
            half = torch.tensor([width / 2, height / 2])  # pixels per grid unit
            theta = torch.cat([self._matrices, (self._shift / half).unsqueeze(-1)], dim=-1)
            grid = F.affine_grid(theta, [self.view_count, 1, height, width], align_corners=False)
            self._made = self.bend(grid).to(images.device)
        return self._made

    def bend(self, grid: Tensor) -> Tensor:
        """Move the points once more, each view in its own way; an affine transform leaves them.

        Args:
            grid: (views, height, width, 2) float, x and y, -1 and 1 at the image's edges.
        """
        return grid


class Elastic(Affine):
    """Affine, and a smooth random displacement of every pixel, as if by a shaking hand.

    Source: Simard, Steinkraus & Platt 2003, "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis", section 2, with sigma 4 and displacements of 1.4 pixels (alpha 34).

    Args:
        strength: Root mean square of the displacements along each axis, in pixels, >= 0.
        sigma: Standard deviation of the Gaussian that smooths them, in pixels, > 0.
        side: Height and width of the images, in pixels; None takes pictures of any size.
        degrees: Largest rotation, in degrees.
        scale: Largest relative change of size; 0.1 gives factors from 0.9 to 1.1.
        shear: Largest shear, a factor of the height.
        pixels: Largest shift along each axis, in pixels, below the images' side.
        views: Number of different transforms, >= 2, the identity included.
        seed: Seed of the draw.
    """

    def __init__(
        self,
        strength: float = 1.4,
        sigma: float = 4.0,
        side: int | None = None,
        degrees: float = 12.0,
        scale: float = 0.1,
        shear: float = 0.1,
        pixels: float = 2.0,
        views: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__(degrees, scale, shear, pixels, views, seed)
        if not (0 <= strength < math.inf and 0 < sigma < math.inf):
            raise ValueError(
                f"elastic strength must be >= 0 and sigma > 0, both finite, got strength={strength}, sigma={sigma}"
            )
        self.strength, self.sigma, self.side, self.seed = strength, sigma, side, seed

    def bend(self, grid: Tensor) -> Tensor:
        """Add the views' displacements.

        Raises:
            ValueError: If the images have another side than was given.
        """
        height, width = grid.shape[1:3]
        if self.side not in {None, height} or self.side not in {None, width}:
            raise ValueError(f"elastic side is {self.side}, got images of {height} x {width}; leave side out")
        moves = self._smooth_noise(height, width).permute(0, 2, 3, 1)  # (views, height, width, 2), in pixels
        bent: Tensor = grid + moves * torch.tensor([2 / width, 2 / height])  # grid units
        return bent

    def _smooth_noise(self, height: int, width: int) -> Tensor:
        """Displacements of every pixel along each axis, (views, 2, height, width), in pixels."""
        margin = max(1, round(3 * self.sigma))  # the Gaussian's reach; a margin of this size is drawn and then cut off
        generator = torch.Generator().manual_seed(self.seed + 1)
        noise = torch.randn(self.view_count, 2, height + 2 * margin, width + 2 * margin, generator=generator)
        reach, sigmas = 2 * margin + 1, [self.sigma] * 2
        smooth: Tensor = gaussian_blur(gaussian_blur(noise, [reach, 1], sigmas), [1, reach], sigmas)
        smooth = smooth[..., margin:-margin, margin:-margin]
        smooth *= self.strength / smooth.square().mean().sqrt()
        return smooth
