"""RisingMomentum: the schedule of momentum and step size that dropout was introduced with."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR


class RisingMomentum(LambdaLR):
    """Momentum rises linearly and then stays; the step size falls by the same factor in each step.

    Source: Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature detectors",
    arXiv:1207.0580, appendix A.1, where the defaults are those of its 3,000 epochs. Each gradient counts
    (1 - momentum) times, as there: `dampening` follows the momentum, and a longer memory makes no longer step.

    Args:
        optimizer: torch.optim.SGD or another with momentum and dampening; its learning rate is the first.
        total_steps: Optimizer steps of the whole run.
        first_momentum: In [0, 1).
        last_momentum: In [0, 1).
        rise_fraction: Share of the steps during which the momentum rises, in (0, 1].
        last_lr: Learning rate at the end, as a share of the first, in (0, 1].

    Raises:
        ValueError: If an argument is out of range, or the optimizer has no momentum.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        first_momentum: float = 0.5,
        last_momentum: float = 0.99,
        rise_fraction: float = 1 / 6,  # 500 of 3,000 epochs
        last_lr: float = 0.998**3000,  # a factor of 0.998 for each epoch
    ) -> None:
        if not (0 <= first_momentum < 1 and 0 <= last_momentum < 1):
            raise ValueError(f"momentum must be in [0, 1), got {first_momentum} and {last_momentum}")
        if not (0 < rise_fraction <= 1 and 0 < last_lr <= 1):
            raise ValueError(f"rise_fraction and last_lr must be in (0, 1], got {rise_fraction} and {last_lr}")
        if any(not {"momentum", "dampening"} <= group.keys() or group["nesterov"] for group in optimizer.param_groups):
            raise ValueError(
                "RisingMomentum needs an optimizer with momentum and dampening, such as torch.optim.SGD without "
                f"nesterov, got {type(optimizer).__name__}"
            )
        rise = max(1.0, rise_fraction * total_steps)

        def factor(step: int) -> float:
            momentum = first_momentum + (last_momentum - first_momentum) * min(1.0, step / rise)
            for group in optimizer.param_groups:
                group["momentum"] = group["dampening"] = momentum
            return math.pow(last_lr, min(1.0, step / max(1, total_steps)))

        super().__init__(optimizer, factor)
