"""TrainLog: the training's curves."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from kd_lightning.modules.lightning_internals import LeanCallback


class TrainLog(LeanCallback):
    """Logs the mean of each number that `training_step` returns, over the batches since the last logged step.

    A step is logged every `log_every_n_steps` of the trainer, and an epoch that is shorter at its end.

    Written at once and not by `self.log`, which costs more than half of an empty step, and which would write after the
    step's checkpoint: a kill in between would lose the point. Callbacks that save checkpoints run after this one.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}  # of each batch since the last logged step
        self._logged_at = 0  # global step that was logged last
        self._restored: list[dict[str, list[Tensor]]] = []  # of each process, from a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the values that a resumed run had not logged yet."""
        if trainer.global_rank < len(self._restored):
            self._values = self._restored[trainer.global_rank]
        self._restored = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tell the module whether this step will be logged: some numbers are only worth computing then."""
        pl_module.step_is_logged = is_logged(trainer, trainer.global_step + 1)  # type: ignore[assignment]  # a bool

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add this batch, and log where it is time.

        Raises:
            ValueError: If the loss is no longer a finite number.
        """
        if not trainer.log_every_n_steps:  # type: ignore[attr-defined]  # set by Lightning's connector
            return
        for name, value in outputs.items():
            self._values.setdefault(name, []).append(value.detach())
        if trainer.accumulate_grad_batches > 1:  # Lightning has divided the loss
            self._values["loss"][-1] = self._values["loss"][-1].float() * trainer.accumulate_grad_batches
        step = trainer.global_step
        if step == self._logged_at or not is_logged(trainer, step):
            return
        # A batch without labels has an accuracy of NaN, which is left out; a loss of NaN ends the run.
        means = {
            name: _stacked(values).nanmean() if name == "accuracy" else _stacked(values).mean()
            for name, values in self._values.items()
        }
        self._values, self._logged_at = {}, step
        if trainer.world_size > 1:
            reduced: Any = trainer.strategy.reduce(torch.stack(list(means.values())), reduce_op="mean")
            means = dict(zip(means, reduced.unbind(), strict=True))
        values = {f"train/{name}": float(value) for name, value in means.items()}
        if not math.isfinite(values["train/loss"]):
            raise ValueError(diverged(step))
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        values["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(values | {"epoch": trainer.current_epoch}, step=step - 1)  # steps are counted from 0
            logger.save()
        pl_module.log_dict(values, logger=False, batch_size=1)  # for the progress bar

    def state_dict(self) -> dict[str, Any]:
        """Values since the last logged step, of each process; called by all of them."""
        mine = {name: _stacked(values).tolist() for name, values in self._values.items()}
        of_each: list[Any] = [mine]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            of_each = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(of_each, mine)
        return {"values": of_each, "logged_at": self._logged_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a checkpoint's values."""
        self._logged_at = state_dict["logged_at"]
        self._restored = [
            {name: list(torch.tensor(values, dtype=torch.float32).unbind()) for name, values in of_one.items()}
            for of_one in state_dict["values"]
        ]


def _stacked(values: list[Tensor]) -> Tensor:
    """Scalars as one float32 tensor; those from a checkpoint are on the CPU, the newer ones where the module is."""
    return torch.stack([value.to(values[-1].device) for value in values]).float()


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether the training's numbers are logged after this global step: at the end of an epoch that is shorter.

    Args:
        trainer: Says how often, how long an epoch is, and whether this is its last batch.
        step: Optimizer steps done.
    """
    interval = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's connector
    if interval and trainer.num_training_batches <= interval * trainer.accumulate_grad_batches:
        return trainer.is_last_batch
    return bool(interval) and step % interval == 0


def diverged(step: int) -> str:
    """The error text when the loss or the weights are no longer finite."""
    return (
        f"the loss is no longer a finite number at step {step}; the last checkpoint before is kept: "
        "lower the learning rate, or set --trainer.gradient_clip_val"
    )
