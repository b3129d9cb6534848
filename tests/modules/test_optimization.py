"""The weight limit, the schedule, fused kernels, the checks of arguments, and the mixture of the losses."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.optimization import WarmupCosine, enable_fused_kernels, limit_norms
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.nets.digits import MLP, SmallConvNet


@pytest.mark.parametrize("net", [MLP(hidden=[32]), SmallConvNet(channels=[8], hidden=16)])
def test_limit_norms_scales_down_what_is_above_and_nothing_else(net: nn.Module) -> None:
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    before = [layer.weight.detach().clone().flatten(1) for layer in layers]
    limit = float(before[0].norm(dim=1).median())
    limit_norms(net, limit)
    for layer, old in zip(layers, before, strict=True):
        new = layer.weight.detach().flatten(1)
        above = old.norm(dim=1) > limit
        torch.testing.assert_close(new[above].norm(dim=1), torch.full((int(above.sum()),), limit))
        torch.testing.assert_close(new[~above], old[~above])
        torch.testing.assert_close(new / new.norm(dim=1, keepdim=True), old / old.norm(dim=1, keepdim=True))


def test_warmup_cosine_worked_by_hand() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, total_steps=10, warmup_fraction=0.2)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert rates[6] == pytest.approx(1 + math.cos(math.pi * 4 / 8))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    with pytest.raises(ValueError, match=r"warmup_fraction must be in \[0, 1\), got 1"):
        WarmupCosine(optimizer, total_steps=10, warmup_fraction=1)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_fused_kernels_are_used_where_the_user_chose_nothing(kind: Any) -> None:
    def updated(*, quick: bool, **options: Any) -> tuple[torch.Tensor, bool]:
        parameter = nn.Parameter(torch.ones(4))
        optimizer = kind([parameter], lr=0.1, **options)
        if quick:
            enable_fused_kernels(optimizer)
        for _ in range(3):
            parameter.grad = parameter.detach() * torch.arange(4)
            optimizer.step()
        return parameter.detach(), bool(optimizer.param_groups[0]["fused"])

    plain, quick = updated(quick=False), updated(quick=True)
    assert (plain[1], quick[1]) == (False, True)
    torch.testing.assert_close(plain[0], quick[0])
    assert updated(quick=True, foreach=True)[1] is False


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="max_norm must be > 0, got 0"):
        TeacherModule(net=MLP(hidden=[4]), max_norm=0)
    with pytest.raises(ValueError, match=r"soft_weight must be in \[0, 1\], got -0.1"):
        DistillModule(student=MLP(hidden=[4]), soft_weight=-0.1)
    with pytest.raises(ValueError, match=r"dropout_hidden must be in \[0, 1\), got 1.0"):
        MLP(hidden=[4], dropout_hidden=1.0)
    with pytest.raises(ValueError, match=r"layer sizes must be > 0, got \[0\]"):
        MLP(hidden=[0])
