"""A net is described, built again and told apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch import nn

from kd_lightning import (
    MLP,
    CropMirror,
    Elastic,
    ImageFolderDataModule,
    MNISTDataModule,
    SmallConvNet,
    SpokenDigitsDataModule,
)
from kd_lightning.nets.description import (
    build_net,
    build_object,
    describe_net,
    describe_object,
    fingerprint,
    in_eval_mode,
    parameter_count,
)


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


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (MNISTDataModule("mnist5k", val_size=40, augment=Elastic(degrees=3, views=9)), {"dataset": "mnist5k"}),
        (ImageFolderDataModule("x", size=[8, 9], val_size=3, augment=CropMirror(views=9)), {"size": [8, 9]}),
        (SpokenDigitsDataModule(before=3, val_speaker="theo"), {"before": 3, "val_speaker": "theo"}),
    ],
    ids=["mnist", "folder", "speech"],
)
def test_described_data_is_built_again(data: LightningDataModule, given: dict[str, Any]) -> None:
    description = describe_object(data)
    assert description["init_args"].items() >= given.items()
    assert describe_object(build_object(description, LightningDataModule)) == description


class Kept:
    """Keeps some of its arguments."""

    def __init__(self, path: Path, inner: object, function: object, lost: int, **more: int) -> None:
        self.path, self.inner, self.function = path, inner, function


def test_what_is_not_kept_or_not_plain_is_left_out() -> None:
    kept = Kept(Path("a"), Kept(Path("b"), None, None, lost=1), print, lost=1)
    described = describe_object(kept)["init_args"]
    assert described["path"] == "a"
    assert described["inner"]["init_args"] == {"path": "b", "inner": None, "function": None}
    assert described.keys() == {"path", "inner"}


def test_a_circle_of_objects_ends() -> None:
    kept = Kept(Path("a"), None, None, lost=1)
    kept.inner = kept
    assert "init_args" in describe_object(kept)
