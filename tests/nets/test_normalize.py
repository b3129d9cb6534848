"""The first layer's numbers: given, measured or loaded, and kept."""

import copy
import pickle

import pytest
import torch
from torch import nn

from kd_lightning import MLP, Normalize, SmallConvNet
from kd_lightning.nets.description import build_net, describe_net, fingerprint
from kd_lightning.nets.normalize import layers_to_set

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_without_numbers_inputs_stay_as_they_are() -> None:
    layer = Normalize()
    assert torch.equal(layer(IMAGES), IMAGES)
    assert not layer.is_set
    assert layer.arguments() == {"mean": None, "std": None}


def test_numbers_are_set_once_and_described() -> None:
    net = MLP(hidden=[4], inputs=48)
    (layer,) = layers_to_set(net)
    layer.set([0.25, 0.5, 0.75], [1.0, 2.0, 4.0])
    assert list(layers_to_set(net)) == []
    description = describe_net(net) or {}
    assert description["init_args"]["mean"] == [0.25, 0.5, 0.75]
    assert description["init_args"]["std"] == [1.0, 2.0, 4.0]
    again = build_net(description)
    again.load_state_dict(net.state_dict())
    assert fingerprint(again) == fingerprint(net)


def test_given_numbers_are_described_as_they_were_given() -> None:
    description = describe_net(MLP(hidden=[4], mean=0.1307, std=0.3081)) or {}
    assert (description["init_args"]["mean"], description["init_args"]["std"]) == (0.1307, 0.3081)


@pytest.mark.parametrize("mean", [0.5, [0.1, 0.2, 0.3]])
@pytest.mark.parametrize("copied", [lambda net: net, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])  # noqa: S301
def test_a_net_without_numbers_takes_those_of_the_weights(mean: float | list[float], copied: object) -> None:
    std = 2.0 if isinstance(mean, float) else [2.0] * 3
    trained = MLP(hidden=[4], inputs=48, mean=mean, std=std)
    net = copied(MLP(hidden=[4], inputs=48))  # type: ignore[operator]
    net.load_state_dict(trained.state_dict())
    torch.testing.assert_close(net(IMAGES), trained(IMAGES))
    assert list(layers_to_set(net)) == []
    assert describe_net(net)["init_args"]["mean"] == pytest.approx(mean)  # type: ignore[index]


def test_the_fingerprint_says_which_numbers() -> None:
    net = MLP(hidden=[4])
    prints = [fingerprint(net)]
    for mean in (0.1, [0.1]):
        net[0].set(mean, 0.3 if isinstance(mean, float) else [0.3])  # type: ignore[operator]
        prints.append(fingerprint(net))
    assert len(set(prints)) == 3


def test_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"give both mean and std, or none of them, got mean=0.5 and std=None"):
        MLP(hidden=[4], mean=0.5)
    with pytest.raises(ValueError, match=r"std must be > 0, got 0.0"):
        Normalize().set(0.0, 0.0)


@pytest.mark.parametrize("side", [28, 32, 33])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_convolutional_net_takes_any_side_and_channels(side: int, in_channels: int) -> None:
    net = SmallConvNet(channels=[2, 4], hidden=4, classes=5, side=side, in_channels=in_channels)
    assert net(torch.rand(2, in_channels, side, side)).shape == (2, 5)
    again = build_net(describe_net(net) or {})
    again.load_state_dict(net.state_dict())


def test_the_convolutional_nets_weights_for_mnist_are_as_before() -> None:
    torch.manual_seed(0)
    net = SmallConvNet(channels=[2], hidden=4)
    torch.manual_seed(0)
    first = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    nn.Conv2d(2, 2, 3, padding=1, bias=False)
    middle = nn.Linear(2 * 14 * 14, 4)
    weights = net.state_dict()
    assert torch.equal(weights["1.weight"], first.weight)
    assert torch.equal(weights["9.weight"], middle.weight)
    with pytest.raises(ValueError, match="side must be >= 8 for 3 stages, got 7"):
        SmallConvNet(channels=[2, 2, 2], side=7)
