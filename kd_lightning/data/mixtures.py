"""Mixtures of two training examples, as numbered views: more points of the teacher's function."""

import math

import torch
from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.inputs import Inputs

_NOISE_NUMBERS = 4_000_000  # of all patterns of noise together, 16 MB


class Mixtures:
    """Mixes each training example with another one of the transfer set; may transform the mixture, and add noise.

    The teachers are asked about the very mixture. A mixture has no label: only the plain example, view 0, adds to the
    hard loss. Source: Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent",
    arXiv:2106.05237, section 3, which calls it function matching.

    The transfer set stands in a circle, in an order drawn once. Each view has a distance along the circle, at which
    the other example stands, and the share of that example. So a mixture depends on the seed, the view and the row.

    Args:
        views: Number of views, >= 2, the plain example included.
        noise: Standard deviation of Gaussian noise on each mixture, in the unit of the inputs, >= 0.
        seed: Seed of the draws.
        transform: Augment that transforms each mixture of pictures, such as CropMirror or Elastic. Mixture k gets view
            k, so it needs at least `views` views. None leaves the mixtures as they are.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, views: int = 64, noise: float = 0.0, seed: int = 0, transform: Augment | None = None) -> None:
        if views < 2:
            raise ValueError(f"mixtures views must be >= 2, got {views}")
        if transform is not None and views > transform.view_count:
            raise ValueError(
                f"mixtures views must not exceed the {transform.view_count} views of their transform, got {views}; "
                "lower views, or give the transform more"
            )
        if not 0 <= noise < math.inf:
            raise ValueError(f"mixtures noise must be finite and >= 0, got {noise}")
        self.view_count, self.noise, self.seed, self.transform = views, noise, seed, transform
        self._shares, self._distances = torch.rand(2, views, generator=self._generator(0))
        self._shares[0] = 0.0
        self._transfer_rows: Tensor | None = None  # those of the circle
        self._circle = self._places = torch.empty(0, dtype=torch.int64)
        self._patterns: Tensor | None = None  # of noise

    def partners(self, rows: Tensor, views: Tensor, transfer_rows: Tensor) -> Tensor:
        """Rows of the other examples, (batch,) int64.

        Args:
            rows: (batch,) int64, on the CPU.
            views: (batch,) int64, on the CPU.
            transfer_rows: (examples,) int64, rows that train, from which the others come.
        """
        count = len(transfer_rows)
        if self._transfer_rows is not transfer_rows:
            self._transfer_rows = transfer_rows
            self._circle = transfer_rows[torch.randperm(count, generator=self._generator(1))]
            self._places = torch.zeros(int(transfer_rows.max()) + 1, dtype=torch.int64)
            self._places[self._circle] = torch.arange(count)
        places = self._places[rows.clamp(max=len(self._places) - 1)]  # validation rows come in view 0 only
        return self._circle[(places + 1 + (self._distances[views] * (count - 1)).long()) % count]

    def mix(self, own: Inputs, others: Inputs, rows: Tensor, views: Tensor) -> Tensor:
        """Mix each example with its partner, (batch, ...); those of view 0 are unchanged, bit for bit.

        Args:
            own: (batch, ...) float.
            others: (batch, ...) float, the partners.
            rows: (batch,) int64, of `own`.
            views: (batch,) int64, in [0, view_count).

        Raises:
            ValueError: If the inputs are several tensors, or not floating; or if they are to be transformed and are no
                pictures.
        """
        if not (isinstance(own, Tensor) and isinstance(others, Tensor) and own.is_floating_point()):
            raise ValueError("Mixtures needs inputs of one floating tensor; leave augment out for other inputs")
        if self.transform is not None and own.ndim != 4:
            raise ValueError(
                "Mixtures transforms pictures, (batch, channels, height, width), "
                f"got inputs of {own.ndim} dimensions; leave its transform out"
            )
        wide = (-1, *[1] * (own.ndim - 1))
        shares = self._shares.to(own.device, own.dtype)[views].view(wide)
        mixed = own.lerp(others, shares)
        if self.transform is not None:
            mixed = self.transform(mixed, views)
        if self.noise:
            mixed += self._noise(own, rows, views) * (views > 0).view(wide)
        return mixed

    def labels(self, labels: Tensor, views: Tensor) -> Tensor:
        """Labels (batch,) int64 of the examples in these views: -1, unknown, for each mixture."""
        return torch.where(views > 0, -1, labels)

    def _noise(self, own: Tensor, rows: Tensor, views: Tensor) -> Tensor:
        """Noise of each mixture, one of a few thousand patterns."""
        shape, made = own.shape[1:], self._patterns
        if made is None or made.shape[1:] != shape or made.device != own.device:
            count = max(1, _NOISE_NUMBERS // shape.numel())
            made = self.noise * torch.randn(count, *shape, generator=self._generator(2))
            self._patterns = made = made.to(own.device, own.dtype)
        return made[(rows + views) % len(made)]

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(3 * self.seed + purpose)
