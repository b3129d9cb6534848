"""The line before the first step, and fits that make no run: --dry_run and --prepare."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from kd_lightning.data.transfer_data import data_of, transfer_data
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.optimization import accumulation_schedule, planned_steps
from kd_lightning.modules.teacher_setup import teacher_setups
from kd_lightning.nets.description import parameter_count
from kd_lightning.runs.texts import counted
from kd_lightning.teachers.source import StoredTeachers


class Banner(LeanCallback):
    """Logs before the first step which net trains on which data."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it."""
        net = pl_module.net if isinstance(pl_module, ClassifierModule) else pl_module
        data = transfer_data(data_of(trainer))
        described = type(data_of(trainer)).__name__ if data is None else data.describe()
        plain = isinstance(pl_module, DistillModule) and pl_module.learns_from_labels_only
        module = f"{type(pl_module).__name__}{', labels only' * plain}"
        rank_zero_info(
            f"data: {described}\n"
            f"{module}: {type(net).__name__} with {parameter_count(net):,} parameters, "
            f"{_length(trainer)}, on {trainer.world_size} x {trainer.strategy.root_device}"
        )


def _length(trainer: Trainer) -> str:
    """How many steps an epoch and the run take."""
    batches, per_step, planned = trainer.num_training_batches, trainer.accumulate_grad_batches, planned_steps(trainer)
    in_all = "without end" if math.isinf(planned) else f"{planned:,.0f} in all"
    if accumulation_schedule(trainer) is not None:
        return f"{counted(batches, 'batch', 'batches')} an epoch, steps of several batches, {in_all}"
    if per_step > 1 and math.isfinite(batches):
        return f"{counted(math.ceil(batches / per_step), 'step')} of {per_step} batches an epoch, {in_all}"
    return f"{counted(batches, 'step')} an epoch, {in_all}"


class TrialDone(Exception):  # noqa: N818  # not an error: all went well
    """Ends a fit that makes no run."""


class DryRun(LeanCallback):
    """Ends the training after one step. It only logs whether the teachers' logits would be stored."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the teachers run live."""
        for setup in teacher_setups(trainer):
            setup.fill_store = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop.

        Raises:
            TrialDone: Always.
        """
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        loss = loss * trainer.accumulate_grad_batches  # Lightning has divided it
        examples = counted(len(batch[1]), "example")
        rank_zero_info(f"dry run: one step of {examples}, loss {float(loss):.4f}; nothing was written")
        raise TrialDone


class Prepare(LeanCallback):
    """Ends the fit before the first step, when the data is there and the teachers' logits are stored."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the teachers' logits be stored, also if this run is too short to save time by it."""
        for setup in teacher_setups(trainer):
            setup.must_store = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop.

        Raises:
            ValueError: If there are teachers and nothing was stored.
            TrialDone: Otherwise.
        """
        source = pl_module.source if isinstance(pl_module, DistillModule) else None
        if source is not None and not isinstance(source, StoredTeachers):
            raise ValueError(
                "--prepare stores the teachers' logits, and here the teachers run live, as is said above; set "
                "--model.soft_targets to auto or stored, or fit without --prepare"
            )
        raise TrialDone
