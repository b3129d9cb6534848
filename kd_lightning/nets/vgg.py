"""VGG: plain convolutional nets for pictures of 32 x 32."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from kd_lightning.nets.convolutions import check_sizes, normed_convolution, start_as_he
from kd_lightning.nets.normalize import Normalize

_POOLED = 3  # stages that end in a pooling: 32 x 32 -> 4 x 4


class VGG(nn.Sequential):
    """Stages of 3 x 3 convolutions with batch norm and ReLU, the mean over the picture, and one linear layer.

    Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, with the small end that pictures of 32 x 32 leave room for.
    A 2 x 2 max-pooling follows each of the first three stages. The stages are called `stage1`, `stage2` and so on. By
    the names that the literature uses:

        VGG-8     convolutions [1, 1, 1, 1, 1]
        VGG-13    convolutions [2, 2, 2, 2, 2]
        VGG-16    convolutions [2, 2, 3, 3, 3]

    Args:
        convolutions: Convolutions of each stage.
        channels: Channels of each stage.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel; None: as measured by the data module.
        std: Their standard deviation, > 0; likewise.
        in_channels: Channels of the pictures: 1 for grey, 3 for colour.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> VGG(convolutions=[2, 2, 2, 2, 2], classes=100)  # VGG-13
    """

    def __init__(
        self,
        convolutions: Sequence[int] = (1, 1, 1, 1, 1),
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        classes: int = 10,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        in_channels: int = 3,
    ) -> None:
        check_sizes({"convolutions": convolutions, "channels": channels}, classes=classes, in_channels=in_channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(mean, std))
        width = in_channels
        for number, (count, outputs) in enumerate(zip(convolutions, channels, strict=True), start=1):
            layers[f"stage{number}"] = _stage(width, outputs, count)
            if number <= _POOLED:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            width = outputs
        layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        layers["linear"] = linear = nn.Linear(width, classes)
        super().__init__(layers)
        start_as_he(self)
        nn.init.normal_(linear.weight, std=0.01)  # the deviation of the published nets
        nn.init.zeros_(linear.bias)
        self.to(memory_format=torch.channels_last)  # see SmallConvNet
        self.init_args = {
            "convolutions": list(convolutions),
            "channels": list(channels),
            "classes": classes,
            "mean": mean,
            "std": std,
            "in_channels": in_channels,
        }


def _stage(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        # With a bias, as published; it makes the known counts of parameters.
        layers += [*normed_convolution(outputs if number else inputs, outputs, bias=True), nn.ReLU()]
    return nn.Sequential(*layers)
