"""Residual nets: the literature's sizes, what a block computes, and what is refused."""

import pytest
import torch
from torch import nn

from kd_lightning import ResNet
from kd_lightning.nets.description import build_net, describe_net, fingerprint, parameter_count
from kd_lightning.nets.residual import ChannelAttention, PreActivatedBlock, ResidualBlock


def resnet(depth: int, wide: bool = False, eca: bool = False, classes: int = 100) -> ResNet:
    """A residual net of the literature, by its depth; `wide` has four times the channels."""
    blocks, channels = [(depth - 2) // 6] * 3, [64, 128, 256] if wide else [16, 32, 64]
    return ResNet(blocks, channels, stem=32 if wide else 16, eca=eca, classes=classes)


def wide_resnet(depth: int) -> ResNet:
    """WRN-depth-2."""
    return ResNet([(depth - 4) // 6] * 3, [32, 64, 128], pre_activation=True, classes=100)


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (resnet(20, classes=10), 272_474),  # 0.27 M
        (resnet(20), 278_324),  # 0.28 M
        (resnet(56), 861_620),  # 0.86 M
        (resnet(8, wide=True), 1_233_540),  # 1.23 M
        (resnet(32, wide=True), 7_433_860),  # 7.43 M
        (wide_resnet(16), 703_284),  # 0.70 M
        (wide_resnet(40), 2_255_156),  # 2.26 M
        (ResNet([2, 2, 2, 2], [64, 128, 256, 512], stem=64, classes=100), 11_220_132),
    ],
    ids=["ResNet-20 of 10", "ResNet-20", "ResNet-56", "resnet8x4", "resnet32x4", "WRN-16-2", "WRN-40-2", "ResNet-18"],
)
def test_published_sizes(net: ResNet, count: int) -> None:
    assert parameter_count(net) == count


@pytest.mark.parametrize("pre_activation", [False, True], ids=["plain", "pre-activated"])
def test_stages_halve_the_side_and_gradients_reach_every_weight(pre_activation: bool) -> None:
    net = ResNet([1, 1, 1], [4, 8, 12], stem=4, eca=True, pre_activation=pre_activation, classes=5)
    sides: dict[str, tuple[int, ...]] = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: sides.update({name: tuple(output.shape[1:])}))
    logits = net(torch.rand(2, 3, 16, 16))
    assert logits.shape == (2, 5)
    assert sides["stage1"] == (4, 16, 16)
    assert sides["stage2"] == (8, 8, 8)
    assert sides["stage3"] == (12, 4, 4)
    logits.square().sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in net.parameters())


def test_a_described_net_is_built_again() -> None:
    net = ResNet([1, 2], [4, 8], stem=4, eca=True, pre_activation=True, in_channels=1, mean=0.2, std=0.5)
    again = build_net(describe_net(net) or {})
    again.load_state_dict(net.state_dict())
    assert fingerprint(again) == fingerprint(net)


def silence(convolution: nn.Module) -> None:
    for weight in convolution.parameters():
        nn.init.zeros_(weight)


def test_without_a_residual_a_block_is_its_shortcut() -> None:
    inputs = torch.randn(2, 4, 6, 6)
    plain, before = ResidualBlock(4, 4).eval(), PreActivatedBlock(4, 4).eval()
    silence(plain.second[0])
    silence(before.second)
    torch.testing.assert_close(plain(inputs), inputs.relu())
    torch.testing.assert_close(before(inputs), inputs)


def test_a_shortcut_that_changes_the_shape_of_a_pre_activated_block_begins_after_the_first_relu() -> None:
    block = PreActivatedBlock(2, 4, stride=2).eval()
    silence(block.second)
    assert block(-torch.rand(1, 2, 4, 4)).eq(0).all()


@pytest.mark.parametrize(("channels", "reach"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_channel_attention_reaches_as_far_as_in_its_paper(channels: int, reach: int) -> None:
    assert parameter_count(ChannelAttention(channels)) == reach


def test_channel_attention_by_hand() -> None:
    layer = ChannelAttention(8)
    with torch.no_grad():
        layer.convolution.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0]]]))
    means = torch.tensor([0.1, -0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.5])
    inputs = means.view(1, 8, 1, 1) + torch.tensor([[-1.0, 1.0]])  # (1, 8, 1, 2)
    # Each channel's sum: its left neighbour, twice itself, three times its right neighbour.
    sums = torch.tensor([0.2 - 0.6, 0.1 - 0.4 + 0.9, -0.2 + 0.6 + 1.2, 0.3 + 0.8, 0.4, 0.0, 1.5, 1.0])
    torch.testing.assert_close(layer(inputs), inputs * sums.sigmoid().view(1, 8, 1, 1))


def test_attention_is_an_option_of_few_weights() -> None:
    assert parameter_count(resnet(20, eca=True)) - parameter_count(resnet(20)) == 9 * 3


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"blocks and channels must be as many, got \[1, 1\] and \[16, 32, 64\]"):
        ResNet([1, 1])
    with pytest.raises(ValueError, match=r"blocks must be >= 1, got \[3, 0, 3\]"):
        ResNet([3, 0, 3])
    with pytest.raises(ValueError, match=r"blocks must be >= 1, got \[\]"):
        ResNet([], [])
    with pytest.raises(ValueError, match="stem must be >= 1, got 0"):
        ResNet(stem=0)
