"""Mean and deviation of inputs, by which nets normalise them."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# A smaller deviation, as a share of the mean, is rounding: float32 has seven digits.
_CONSTANT = 1e-6


class InputStatistics(NamedTuple):
    """Mean and standard deviation of what the nets get.

    Attributes:
        mean: One number for all inputs, or one per channel.
        std: > 0; likewise. 1 for a channel that is constant.
    """

    mean: float | list[float]
    std: float | list[float]


def measured(batches: Iterable[Tensor]) -> InputStatistics:
    """Measure inputs, in float64: each channel by itself, and one number where there is a single channel.

    Args:
        batches: Inputs (batch, channels, ...): pictures (batch, 3, height, width), or (batch, features).

    Raises:
        ValueError: If there are no inputs, or one is not a finite number.
    """
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for inputs in batches:
        numbers = inputs.reshape(len(inputs), inputs.shape[1] if inputs.ndim > 1 else 1, -1).double()  # (b, c, rest)
        count += numbers.shape[0] * numbers.shape[2]
        total = total + numbers.sum(dim=(0, 2))
        squares = squares + numbers.square_().sum(dim=(0, 2))
    mean = total / max(1, count)
    deviation = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt()
    if not count or not bool(torch.isfinite(deviation).all()):
        got = "an infinite one or one that is no number" if count else "none"
        raise ValueError(f"the training inputs must be finite numbers, got {got}; nets can't be given their mean")
    deviation[deviation <= _CONSTANT * mean.abs()] = 1.0
    if len(mean) == 1:
        return InputStatistics(float(mean), float(deviation))
    return InputStatistics(mean.tolist(), deviation.tolist())
