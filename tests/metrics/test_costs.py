"""What a net costs, against figures worked by hand."""

import torch
from torch import nn

from kd_lightning.metrics.costs import measure_costs
from kd_lightning.nets.digits import MLP


def test_costs_of_a_small_net() -> None:
    net = MLP(hidden=[20], dropout_hidden=0.5)
    net.train()
    costs = measure_costs(net, torch.rand(50, 1, 28, 28))
    assert costs.parameters == 784 * 20 + 20 + 20 * 10 + 10
    assert costs.flops == 2 * (784 * 20 + 20 * 10)  # a multiplication and an addition per weight
    assert 4 * costs.parameters < costs.file_bytes < 4 * costs.parameters + 5000
    assert costs.batch_size == 50
    assert costs.single_ms > 0
    assert costs.batch_ms > 0
    assert net.training


def test_costs_of_a_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten())
    assert measure_costs(net, torch.rand(2, 1, 28, 28)).flops == 2 * 28 * 28 * 4 * 9
