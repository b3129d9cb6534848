"""A net is described, built again and told apart."""

import pytest
import torch
from torch import nn

from kd_lightning import MLP, SmallConvNet
from kd_lightning.nets.description import build_net, describe_net, fingerprint, in_eval_mode, parameter_count


@pytest.mark.parametrize(
    "net", [MLP(hidden=[8, 4], dropout_hidden=0.1), SmallConvNet(channels=[2], hidden=4)], ids=["mlp", "conv"]
)
def test_a_described_net_is_built_again(net: nn.Module) -> None:
    description = describe_net(net)
    assert description is not None
    again = build_net(description)
    again.load_state_dict(net.state_dict())
    assert fingerprint(again) == fingerprint(net)
    assert parameter_count(again) == parameter_count(net)


def test_a_class_path_of_an_older_file_still_builds() -> None:
    built = build_net({"class_path": "kd_lightning.nets.MLP", "init_args": {"hidden": [3]}})
    assert isinstance(built, MLP)


def test_a_net_without_init_args_has_no_description() -> None:
    assert describe_net(nn.Linear(2, 2)) is None


def test_what_can_not_be_built_is_said() -> None:
    with pytest.raises(ValueError, match=r"can't build no.such.Net"):
        build_net({"class_path": "no.such.Net"})


def test_a_fingerprint_changes_with_any_weight() -> None:
    net = MLP(hidden=[4])
    before = fingerprint(net)
    with torch.no_grad():
        next(net.parameters())[0, 0] += 1e-6
    assert fingerprint(net) != before


def test_eval_mode_ends_and_every_layer_has_its_own_mode_again() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval(), nn.Linear(2, 2))
    with in_eval_mode(net):
        assert not any(layer.training for layer in net.modules())
    assert [layer.training for layer in net.modules()] == [True, True, False, True]
