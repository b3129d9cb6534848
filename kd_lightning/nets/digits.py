"""Small nets for pictures. Each takes images in [0, 1] and normalises them in its first layer."""

from collections.abc import Sequence

import torch
from torch import nn

from kd_lightning.nets.normalize import Normalize

__all__ = ["MLP", "MNIST_MEAN", "MNIST_STD", "Normalize", "SmallConvNet"]

# Mean and standard deviation of the pixels of the 60,000 MNIST training images, in [0, 1].
MNIST_MEAN = 0.1307
MNIST_STD = 0.3081


class MLP(nn.Sequential):
    """Fully connected net with ReLU units, as in Hinton et al. 2015, section 3.

    Args:
        hidden: Units of each hidden layer, such as [1200, 1200].
        dropout_input: Chance in [0, 1) that a pixel is dropped in training.
        dropout_hidden: Chance in [0, 1) that a hidden unit is dropped in training.
        inputs: Pixels of an image.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel; None: as measured by the data module.
        std: Their standard deviation, > 0; likewise.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
        inputs: int = 28 * 28,
        classes: int = 10,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
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
        channels: Channels of each stage; every stage halves the images' side.
        hidden: Units of the fully connected layer before the logits.
        dropout: Chance in [0, 1) that a unit of that layer is dropped in training.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel; None: as measured by the data module.
        std: Their standard deviation, > 0; likewise.
        side: Height and width of the images, in pixels, at least 2 to the power of the stages.
        in_channels: Channels of the images: 1 for grey, 3 for colour.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.3,
        classes: int = 10,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        side: int = 28,
        in_channels: int = 1,
    ) -> None:
        _check_dropout(dropout=dropout)
        _check_sizes([*channels, hidden, in_channels])
        if side < 2 ** len(channels):
            raise ValueError(f"side must be >= {2 ** len(channels)} for {len(channels)} stages, got {side}")
        layers: list[nn.Module] = [Normalize(mean, std)]
        width = in_channels
        for count in channels:
            for source in (width, count):
                layers += [
                    nn.Conv2d(source, count, 3, padding=1, bias=False),
                    nn.BatchNorm2d(count),
                    nn.ReLU(),
                ]
            layers.append(nn.MaxPool2d(2))
            width = count
        left = side // 2 ** len(channels)
        layers += [nn.Flatten(), nn.Linear(width * left * left, hidden), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(hidden, classes))
        self.to(memory_format=torch.channels_last)  # on a CPU in bfloat16 twice the images per second
        self.init_args = {
            "channels": list(channels),
            "hidden": hidden,
            "dropout": dropout,
            "classes": classes,
            "mean": mean,
            "std": std,
            "side": side,
            "in_channels": in_channels,
        }


def _check_dropout(**chances: float) -> None:
    for name, chance in chances.items():
        if not 0 <= chance < 1:
            raise ValueError(f"{name} must be in [0, 1), got {chance}")


def _check_sizes(sizes: Sequence[int]) -> None:
    if not all(size > 0 for size in sizes):
        raise ValueError(f"layer sizes must be > 0, got {list(sizes)}")
