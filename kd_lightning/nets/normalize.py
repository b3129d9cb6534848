"""Normalize: a net's first layer, whose mean and deviation are given, or measured on the training data."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(inputs - mean) / std, one mean and deviation for all numbers or one for each channel.

    Without numbers of its own it takes those of the data module when training starts. Before that, inputs stay as they
    are: mean 0, deviation 1. The numbers are kept with the weights, and a net that is loaded takes them from there.

    Args:
        mean: Mean of the training inputs; a number, or one per channel; None: that of the data it is trained on.
        std: Their standard deviation, > 0; likewise, and None together with the mean.

    Attributes:
        is_set: Whether the numbers were given, measured or loaded.

    Raises:
        ValueError: If a deviation is not > 0, or the numbers of means and deviations differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | list[float] | None = None, std: float | list[float] | None = None) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError(f"give both mean and std, or none of them, got mean={mean} and std={std}")
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))
        self.is_set = False
        if mean is not None and std is not None:
            self.set(mean, std)
        self.register_load_state_dict_pre_hook(_take_shapes)  # type: ignore[no-untyped-call]  # torch's

    def set(self, mean: float | list[float], std: float | list[float]) -> None:
        """Normalise by these numbers from now on.

        Args:
            mean: A number, or one per channel.
            std: > 0; likewise.

        Raises:
            ValueError: If a deviation is not > 0, or the numbers of means and deviations differ.
        """
        if not bool((torch.tensor(std) > 0).all()):
            raise ValueError(f"std must be > 0, got {std}")
        if torch.tensor(mean).shape != torch.tensor(std).shape:
            raise ValueError(f"mean and std must be as many numbers, got {mean} and {std}")
        self.mean, self.std = torch.tensor(mean).to(self.mean), torch.tensor(std).to(self.std)
        self.is_set = True

    def arguments(self) -> dict[str, Any]:  # Any: numbers, lists of numbers or None
        """The constructor's arguments that make such a layer again."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()} if self.is_set else {"mean": None, "std": None}

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs (batch, ...), or (batch, channels, ...) with a mean per channel."""
        if self.mean.ndim == 0:
            return (inputs - self.mean) / self.std
        per_channel = (-1, *[1] * (inputs.ndim - 2))  # (c,) -> (c, 1, 1)
        return (inputs - self.mean.view(per_channel)) / self.std.view(per_channel)


def _take_shapes(layer: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Make room for loaded numbers: one for all, or one per channel. A hook of torch's, with its arguments."""
    mean, std = state.get(prefix + "mean"), state.get(prefix + "std")
    if isinstance(layer, Normalize) and isinstance(mean, Tensor) and isinstance(std, Tensor):
        layer.mean, layer.std = layer.mean.new_empty(mean.shape), layer.std.new_empty(std.shape)
        layer.is_set = True


def layers_to_set(net: nn.Module) -> Iterator[Normalize]:
    """The layers of a net that wait for the numbers of the data."""
    return (layer for layer in net.modules() if isinstance(layer, Normalize) and not layer.is_set)
