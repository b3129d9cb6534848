"""What convolutional nets share: a normed 3 x 3 convolution, and how their weights start."""

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


def check_positive(**sizes: int | list[int]) -> None:
    """Check channels and counts of layers.

    Raises:
        ValueError: If one is not > 0, or a list is empty.
    """
    for name, size in sizes.items():
        numbers = [size] if isinstance(size, int) else size
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name} must be >= 1, got {size}")
