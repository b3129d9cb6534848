"""Small nets for 28 x 28 digits. Each takes images in [0, 1] and normalises them in its first layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Mean and standard deviation of the pixels of the 60,000 MNIST training images, in [0, 1].
MNIST_MEAN = 0.1307
MNIST_STD = 0.3081


class Normalize(nn.Module):
    """(inputs - mean) / std, one mean and deviation for all numbers or one for each channel.

    Args:
        mean: Mean of the training inputs; a number, or one per channel.
        std: Their standard deviation, > 0; a number, or one per channel.

    Raises:
        ValueError: If a deviation is not > 0, or the numbers of means and deviations differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | list[float] = MNIST_MEAN, std: float | list[float] = MNIST_STD) -> None:
        super().__init__()
        if not bool((torch.tensor(std) > 0).all()):
            raise ValueError(f"std must be > 0, got {std}")
        if torch.tensor(mean).shape != torch.tensor(std).shape:
            raise ValueError(f"mean and std must be as many numbers, got {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs (batch, ...), or (batch, channels, ...) with a mean per channel."""
        if self.mean.ndim == 0:
            return (inputs - self.mean) / self.std
        per_channel = (-1, *[1] * (inputs.ndim - 2))  # (c,) -> (c, 1, 1)
        return (inputs - self.mean.view(per_channel)) / self.std.view(per_channel)


class MLP(nn.Sequential):
    """Fully connected net with ReLU units, as in Hinton et al. 2015, section 3.

    Args:
        hidden: Units of each hidden layer, such as [1200, 1200].
        dropout_input: Chance in [0, 1) that a pixel is dropped in training.
        dropout_hidden: Chance in [0, 1) that a hidden unit is dropped in training.
        inputs: Pixels of an image.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel.
        std: Their standard deviation, > 0; likewise.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
        inputs: int = 28 * 28,
        classes: int = 10,
        mean: float | list[float] = MNIST_MEAN,
        std: float | list[float] = MNIST_STD,
    ) -> None:
        _check_dropout(dropout_input=dropout_input, dropout_hidden=dropout_hidden)
        _check_sizes(hidden)
        layers: list[nn.Module] = [Normalize(mean, std), nn.Flatten()]  # (b, 1, 28, 28) -> (b, 784)
        if dropout_input:
            layers.append(nn.Dropout(dropout_input))
        width = inputs
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            if dropout_hidden:
                layers.append(nn.Dropout(dropout_hidden))
            width = units
        super().__init__(*layers, nn.Linear(width, classes))
        self.init_args = {
            "hidden": list(hidden),
            "dropout_input": dropout_input,
            "dropout_hidden": dropout_hidden,
            "inputs": inputs,
            "classes": classes,
            "mean": mean,
            "std": std,
        }


class SmallConvNet(nn.Sequential):
    """Convolutional net: per entry of `channels` two 3 x 3 convolutions with batch norm, then 2 x 2 max-pooling.

    Args:
        channels: Channels of each stage; every stage halves the image's side.
        hidden: Units of the fully connected layer before the logits.
        dropout: Chance in [0, 1) that a unit of that layer is dropped in training.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel.
        std: Their standard deviation, > 0; likewise.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.3,
        classes: int = 10,
        mean: float | list[float] = MNIST_MEAN,
        std: float | list[float] = MNIST_STD,
    ) -> None:
        _check_dropout(dropout=dropout)
        _check_sizes([*channels, hidden])
        layers: list[nn.Module] = [Normalize(mean, std)]
        width = 1
        for count in channels:
            for source in (width, count):
                layers += [
                    nn.Conv2d(source, count, 3, padding=1, bias=False),
                    nn.BatchNorm2d(count),
                    nn.ReLU(),
                ]
            layers.append(nn.MaxPool2d(2))
            width = count
        side = 28 // 2 ** len(channels)
        layers += [nn.Flatten(), nn.Linear(width * side * side, hidden), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(hidden, classes))
        self.to(memory_format=torch.channels_last)  # on a CPU in bfloat16 twice the images per second
        self.init_args = {
            "channels": list(channels),
            "hidden": hidden,
            "dropout": dropout,
            "classes": classes,
            "mean": mean,
            "std": std,
        }


def _check_dropout(**chances: float) -> None:
    for name, chance in chances.items():
        if not 0 <= chance < 1:
            raise ValueError(f"{name} must be in [0, 1), got {chance}")


def _check_sizes(sizes: Sequence[int]) -> None:
    if not all(size > 0 for size in sizes):
        raise ValueError(f"layer sizes must be > 0, got {list(sizes)}")
