"""A net behind its adapter: inputs made in order, classes merged, and a fingerprint that tells adapters apart."""

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from kd_lightning import MLP, AdaptedNet, Pick
from kd_lightning.nets.description import fingerprint

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def _net(classes: int = 6) -> MLP:
    torch.manual_seed(0)
    return MLP(hidden=[8], classes=classes)


def test_an_empty_adapter_changes_nothing() -> None:
    net = _net()
    torch.testing.assert_close(AdaptedNet(net)(IMAGES), net(IMAGES), rtol=0, atol=0)


def test_the_inputs_are_made_in_order() -> None:
    net = AdaptedNet(nn.Flatten(), inputs=[v2.RGB(), v2.Resize([2, 2]), v2.Normalize([0.5, 0.5, 0.0], [0.5, 0.5, 1.0])])
    small = v2.Resize([2, 2])(IMAGES)
    expected = torch.cat([2 * small - 1, 2 * small - 1, small], dim=1).flatten(1)
    torch.testing.assert_close(net(IMAGES), expected)
    colour = IMAGES.expand(-1, 3, 28, 28)
    torch.testing.assert_close(AdaptedNet(nn.Flatten(), inputs=v2.RGB())(IMAGES), colour.flatten(1))


def test_a_class_for_a_class_is_taken_as_it_is() -> None:
    net = _net()
    torch.testing.assert_close(AdaptedNet(net, classes=[4, 0, 2])(IMAGES), net(IMAGES)[:, [4, 0, 2]], rtol=0, atol=0)


def test_the_probabilities_of_merged_classes_are_added() -> None:
    net = _net()
    merged = AdaptedNet(net, classes=[[5, 0], 3, [1, 2, 4]])(IMAGES)
    before = net(IMAGES).softmax(dim=1)
    expected = torch.stack([before[:, [5, 0]].sum(1), before[:, 3], before[:, [1, 2, 4]].sum(1)], dim=1)
    torch.testing.assert_close(merged.softmax(dim=1), expected)
    by_hand = AdaptedNet(nn.Identity(), classes=[[0, 1], 2])(torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(by_hand, torch.tensor([[0.6931472, 1.0]]))  # ln 2


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes must hold an entry for each class that comes out, got none"),
        ([0, []], "got [] for class 1"),
        ([[0, -1]], "got [0, -1] for class 0"),
        ([[3, 3], 1], "got [3, 3] for class 0"),
    ],
)
def test_a_map_that_is_none_is_refused(classes: list[int | list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        AdaptedNet(_net(), classes=classes)


def test_a_map_into_classes_that_are_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes name class 6, but MLP has 6 classes, counted from 0"):
        AdaptedNet(_net(), classes=[0, [1, 6]])(IMAGES)


def test_transforms_that_do_not_take_the_inputs_are_named() -> None:
    integers = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"the inputs of MLP can't be made: .*float"):
        AdaptedNet(_net(), inputs=v2.Normalize([0.5], [0.5]))(integers)


def test_pick_takes_one_of_several_tensors() -> None:
    small, big = torch.zeros(2, 3), torch.ones(2, 9)
    assert Pick("big")({"small": small, "big": big}) is big
    assert Pick(1)((small, big)) is big
    with pytest.raises(ValueError, match=r"Pick\('large'\) finds no such tensor .* there are \['small', 'big'\]"):
        Pick("large")({"small": small, "big": big})
    with pytest.raises(ValueError, match=r"Pick\(2\) finds no such tensor .* there are \[0, 1\]"):
        Pick(2)((small, big))
    with pytest.raises(
        ValueError, match=r"Pick\('big'\) needs inputs that are a tuple or dict of tensors, got a single"
    ):
        Pick("big")(big)
    pick = Pick("big")
    pick.expect_picked()
    assert pick(big) is big


class Scale(nn.Module):
    """A module that does not show its setting."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


def test_a_fingerprint_tells_adapters_apart() -> None:
    net = _net()
    adapters: list[AdaptedNet] = [
        AdaptedNet(net),
        AdaptedNet(net, inputs=v2.Resize([28, 28])),
        AdaptedNet(net, inputs=v2.Resize([28, 29])),
        AdaptedNet(net, inputs=[v2.Resize([28, 28]), Scale(0.5)]),
        AdaptedNet(net, inputs=[v2.Resize([28, 28]), Scale(0.25)]),
        AdaptedNet(net, inputs=Pick(0)),
        AdaptedNet(net, inputs=Pick("0")),
        AdaptedNet(net, classes=[0, 1]),
        AdaptedNet(net, classes=[1, 0]),
        AdaptedNet(net, classes=[1, [0, 2]]),
    ]
    assert len({fingerprint(adapted) for adapted in adapters}) == len(adapters)
    again = AdaptedNet(_net(), inputs=[v2.Resize([28, 28]), Scale(0.25)])
    assert fingerprint(again) == fingerprint(adapters[4])
