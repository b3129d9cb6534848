"""How convolutions start."""

import math

import pytest
import torch
from torch import nn

from kd_lightning.nets.convolutions import normed_convolution, start_as_he


def test_weights_start_with_he_s_deviation() -> None:
    convolution = nn.Conv2d(32, 64, 3)
    nn.init.zeros_(convolution.weight)
    start_as_he(nn.Sequential(convolution))
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 8), (1, 1, 8), (3, 2, 4), (1, 2, 4)])
def test_only_a_stride_changes_the_side(kernel: int, stride: int, side: int) -> None:
    assert normed_convolution(2, 5, kernel, stride)(torch.rand(1, 2, 8, 8)).shape == (1, 5, side, side)
