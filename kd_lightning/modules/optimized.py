"""Optimizer, schedule and weight limit of a LightningModule that holds one net."""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kd_lightning.modules.lightning_internals import QuickHookNames
from kd_lightning.modules.optimization import (
    SchedulerCallable,
    default_optimizer,
    enable_fused_kernels,
    limit_norms,
    make_scheduler,
    steps_of_run,
)


class OptimizedModule(QuickHookNames):
    """A net and how its weights are changed; a subclass computes what is minimised.

    Args:
        net: The net that trains.
        optimizer: Called with the parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer, see `ClassifierModule`.
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.

    Raises:
        ValueError: If max_norm is out of range, or the net has nothing to train.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None,
        scheduler: SchedulerCallable | None,
        max_norm: float | None,
    ) -> None:
        super().__init__()
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be > 0, got {max_norm}")
        if next(net.parameters(), None) is None:
            raise ValueError(f"the net must have parameters to train, got {type(net).__name__} without any")
        self.net = net
        self.optimizer_of = optimizer or default_optimizer
        self.scheduler_of = scheduler
        self.lr: float | None = None
        self.max_norm = max_norm

    def on_fit_start(self) -> None:
        """Build the optimizer again where a LearningRateFinder has just set `lr`: a schedule must start from it."""
        groups = self.trainer.optimizers[0].param_groups
        if self.lr is not None and any(group.get("initial_lr", group["lr"]) != self.lr for group in groups):
            self.trainer.strategy.setup_optimizers(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer of all trainable parameters, the method's own ones too, and the schedule over the whole run."""
        optimizer = self.optimizer_of(self.parameters())
        if self.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.lr
        enable_fused_kernels(optimizer)
        if self.scheduler_of is None:
            return optimizer
        scheduler = make_scheduler(self.scheduler_of, optimizer, partial(steps_of_run, self.trainer))
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = getattr(scheduler, "monitor", "val/loss")  # Lightning's own subclass has one
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "epoch", "monitor": monitor},
            }
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # Any: Lightning's own signature
        """Step a scheduler, but for those that PlateauSteps has stepped."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # Any: Lightning's own signature
        """Step, then keep the weights within max_norm.

        Here and not in a hook after the step, where a checkpoint could be written in between.
        """
        super().optimizer_step(*args, **kwargs)
        if self.max_norm is not None:
            limit_norms(self.net, self.max_norm)
