"""ResNet: residual nets for pictures, wide and pre-activated ones too, with channel attention as an option."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.nets.convolutions import check_sizes, normed_convolution, start_as_he
from kd_lightning.nets.normalize import Normalize


class ResNet(nn.Sequential):
    """Residual net: a 3 x 3 convolution, stages of residual blocks, the mean over the picture, and one linear layer.

    Each block has two 3 x 3 convolutions. The first block of each stage but the first halves the picture's side. Its
    shortcut is a 1 x 1 convolution wherever the shape changes. The stages are called `stage1`, `stage2` and so on.

    He et al. 2015, arXiv:1512.03385, section 4.2; wide nets: Zagoruyko & Komodakis 2016, arXiv:1605.07146. By the names
    that the literature uses for pictures of 32 x 32:

        ResNet-20, ResNet-56      blocks [3, 3, 3], [9, 9, 9]
        resnet8x4, resnet32x4     blocks [1, 1, 1], [5, 5, 5], channels [64, 128, 256], stem 32
        WRN-16-2, WRN-40-2        blocks [2, 2, 2], [6, 6, 6], channels [32, 64, 128], pre_activation true
        ResNet-18                 blocks [2, 2, 2, 2], channels [64, 128, 256, 512], stem 64

    Args:
        blocks: Residual blocks of each stage.
        channels: Channels of each stage.
        stem: Channels of the first convolution.
        eca: Whether each block has efficient channel attention, see `ChannelAttention`.
        pre_activation: Whether norm and ReLU come before each convolution, as in wide nets, and not after it.
        classes: Logits that come out.
        mean: Mean of the training inputs; a number, or one per channel; None: as measured by the data module.
        std: Their standard deviation, > 0; likewise.
        in_channels: Channels of the pictures: 1 for grey, 3 for colour.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> ResNet(blocks=[9, 9, 9], classes=100)  # ResNet-56
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 3, 3),
        channels: Sequence[int] = (16, 32, 64),
        stem: int = 16,
        eca: bool = False,
        pre_activation: bool = False,
        classes: int = 10,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        in_channels: int = 3,
    ) -> None:
        check_sizes({"blocks": blocks, "channels": channels}, stem=stem, classes=classes, in_channels=in_channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(mean, std))
        layers["stem"] = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        if not pre_activation:
            layers["stem"] = nn.Sequential(layers["stem"], nn.BatchNorm2d(stem), nn.ReLU())
        block = PreActivatedBlock if pre_activation else ResidualBlock
        width = stem
        for number, (count, outputs) in enumerate(zip(blocks, channels, strict=True), start=1):
            first = block(width, outputs, stride=1 if number == 1 else 2, eca=eca)
            others = [block(outputs, outputs, eca=eca) for _ in range(count - 1)]
            layers[f"stage{number}"] = nn.Sequential(first, *others)
            width = outputs
        if pre_activation:
            layers["norm"] = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        layers["linear"] = nn.Linear(width, classes)
        super().__init__(layers)
        start_as_he(self)
        # With fewer, torch 2.14 writes beyond its memory in strided 1 x 1 convolutions, on CPUs with AVX2 and no more.
        if min(stem, *channels) >= 8:
            self.to(memory_format=torch.channels_last)  # see SmallConvNet
        self.init_args = {
            "blocks": list(blocks),
            "channels": list(channels),
            "stem": stem,
            "eca": eca,
            "pre_activation": pre_activation,
            "classes": classes,
            "mean": mean,
            "std": std,
            "in_channels": in_channels,
        }


class ResidualBlock(nn.Module):
    """ReLU(shortcut + attention(norm(convolution(ReLU(norm(convolution)))))).

    Args:
        inputs: Channels that come in.
        outputs: Channels that come out.
        stride: 2 halves the picture's side.
        eca: Whether it has channel attention.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, eca: bool = False) -> None:
        super().__init__()
        self.first = normed_convolution(inputs, outputs, stride=stride)
        self.second = normed_convolution(outputs, outputs)
        self.attention = ChannelAttention(outputs) if eca else nn.Identity()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else normed_convolution(inputs, outputs, kernel=1, stride=stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute activations (batch, outputs, height / stride, width / stride), >= 0.

        Args:
            inputs: (batch, inputs, height, width) float.
        """
        residual = self.second(F.relu(self.first(inputs)))
        return F.relu(self.shortcut(inputs) + self.attention(residual))


class PreActivatedBlock(nn.Module):
    """Shortcut + attention(convolution(ReLU(norm(convolution(ReLU(norm)))))), He et al. 2016, arXiv:1603.05027.

    The shortcut begins after the first ReLU where it is a convolution. Arguments as of `ResidualBlock`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, eca: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.first = normed_convolution(inputs, outputs, stride=stride)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.attention = ChannelAttention(outputs) if eca else nn.Identity()
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute activations (batch, outputs, height / stride, width / stride).

        Args:
            inputs: (batch, inputs, height, width) float.
        """
        active = F.relu(self.norm(inputs))
        residual: Tensor = self.attention(self.second(F.relu(self.first(active))))
        return residual + (inputs if self.shortcut is None else self.shortcut(active))


class ChannelAttention(nn.Module):
    """Efficient channel attention: inputs * sigmoid(convolution over neighbouring channels of the pictures' means).

    Wang et al. 2020, arXiv:1910.03151, section 3.2.

    Args:
        channels: Channels of the inputs. The kernel reaches over about (log2(channels) + 1) / 2 of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int((math.log2(channels) + 1) / 2) | 1  # the next odd number
        self.convolution = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale each channel of inputs (batch, channels, height, width)."""
        means = inputs.mean(dim=(2, 3))  # (b, c)
        weights: Tensor = self.convolution(means.unsqueeze(1)).squeeze(1).sigmoid()  # (b, 1, c) -> (b, c)
        return inputs * weights[:, :, None, None]
