"""VGG nets: the literature's sizes, the sides of the stages, and what is refused."""

import pytest
import torch

from kd_lightning import VGG
from kd_lightning.nets.description import build_net, describe_net, fingerprint, parameter_count


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (VGG(classes=100), 3_965_028),  # 3.97 M
        (VGG([2, 2, 2, 2, 2], classes=100), 9_462_180),  # 9.46 M
        (VGG([2, 2, 3, 3, 3], classes=100), 14_774_436),
    ],
    ids=["VGG-8", "VGG-13", "VGG-16"],
)
def test_published_sizes(net: VGG, count: int) -> None:
    assert parameter_count(net) == count


def test_three_stages_end_in_a_pooling() -> None:
    net = VGG([1, 2, 1, 1, 1], [4, 4, 8, 8, 6], classes=7)
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.nn.Sequential(*list(net)[:-2])(inputs).shape == (2, 6, 4, 4)
    assert net(inputs).shape == (2, 7)


def test_a_described_net_is_built_again() -> None:
    net = VGG([1, 2], [4, 8], classes=7, in_channels=1, mean=0.2, std=0.5)
    again = build_net(describe_net(net) or {})
    again.load_state_dict(net.state_dict())
    assert fingerprint(again) == fingerprint(net)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"convolutions and channels must be as many, got \[1\] and \[64, 128"):
        VGG([1])
    with pytest.raises(ValueError, match="in_channels must be >= 1, got 0"):
        VGG(in_channels=0)
