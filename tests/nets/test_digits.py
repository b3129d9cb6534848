"""The small nets and their first layer."""

import pytest
import torch

from kd_lightning import MLP, SmallConvNet
from kd_lightning.nets.description import build_net, describe_net
from kd_lightning.nets.digits import Normalize


def test_one_mean_for_all_or_one_for_each_channel() -> None:
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(Normalize(0.5, 0.25)(images), (images - 0.5) / 0.25)
    normalised = Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(images)
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(normalised[:, channel], (images[:, channel] - mean) / std)
    coefficients = torch.rand(5, 3)
    torch.testing.assert_close(
        Normalize([1.0, 2.0, 3.0], [1.0] * 3)(coefficients), coefficients - torch.arange(1.0, 4.0)
    )


def test_a_mean_for_each_channel_is_kept_with_the_net() -> None:
    net = MLP(hidden=[4], inputs=3 * 16, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    again = build_net(describe_net(net) or {})
    again.load_state_dict(net.state_dict())
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(again(images), net(images))


def test_deviations_are_checked() -> None:
    with pytest.raises(ValueError, match=r"std must be > 0, got \[1.0, 0.0\]"):
        Normalize([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="mean and std must be as many numbers"):
        Normalize([0.0, 0.0], 1.0)


def test_the_state_of_older_nets_still_fits() -> None:
    assert SmallConvNet(channels=[2], hidden=4).state_dict()["0.mean"].shape == ()
