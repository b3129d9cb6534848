"""What convolutional nets share: a normed 3 x 3 convolution, and how their weights start."""

from collections.abc import Mapping, Sequence

from torch import nn


def normed_convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """A convolution that keeps the side, divided by its stride, then batch norm.

    Args:
        inputs: Channels that come in.
        outputs: Channels that come out.
        kernel: Side of the kernel, odd.
        stride: Step of the kernel, in pixels.
        bias: Whether the convolution has a bias, which the norm takes out again; some published nets have one.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def start_as_he(net: nn.Module) -> None:
    """Draw the convolutions' weights for ReLU units (He et al. 2015, arXiv:1502.01852, equation 14)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def check_sizes(stages: Mapping[str, Sequence[int]], **sizes: int) -> None:
    """Check channels and counts of layers.

    Args:
        stages: Numbers of each stage, by argument: as many of one as of the other.
        sizes: Numbers of the whole net.

    Raises:
        ValueError: If a number is not > 0, or the stages' numbers are not as many.
    """
    for name, numbers in {**stages, **{name: [size] for name, size in sizes.items()}}.items():
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name} must be >= 1, got {sizes.get(name, list(numbers))}")
    if len({len(numbers) for numbers in stages.values()}) > 1:
        given = " and ".join(str(list(numbers)) for numbers in stages.values())
        raise ValueError(f"{' and '.join(stages)} must be as many, got {given}")
