"""Crash-safe checkpoints: written next to the old file, at an interval and at a signal, then renamed."""

import errno
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.train_log import diverged
from kd_lightning.runs.checkpoints import BEST, CHECKPOINT_DIR, LAST, RECORD_KEY, STEP_WEIGHTS, read_checkpoint
from kd_lightning.runs.files import (
    write_atomically,
)
from kd_lightning.teachers.npy import size_text
from kd_lightning.training.signals import Stopped, StopSignals


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, flushes it to disk, then renames it: a kill never leaves a half-written checkpoint.

    Lightning's own writer stages in $TMPDIR and moves, which across file systems is a copy that can be cut.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # Lightning's own signature
    ) -> None:
        """Write a checkpoint.

        Raises:
            TypeError: If storage options are given; there are none for local files.
            OSError: If it can't be written, such as on a full disk; the old file is still there.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage options")
        try:
            write_atomically(Path(path), lambda part: torch.save(checkpoint, part))
        except RuntimeError as error:  # torch's writer says "unexpected pos" on a full disk
            raise _disk_is_full(Path(path)) from error
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise _disk_is_full(Path(path)) from error


def _disk_is_full(path: Path) -> OSError:
    older = any(path.parent.glob("*.ckpt"))
    return OSError(
        f"can't write checkpoint {path}: {size_text(shutil.disk_usage(path.parent).free)} are free on its disk; "
        "make room and resume with --ckpt_path last, "
        + ("an older checkpoint is whole" if older else "from the first step, as no checkpoint was written before")
    )


def best_checkpoint(run: Path) -> ModelCheckpoint:
    """Keeps best.ckpt, the weights with the highest validation accuracy; writes nothing without validation."""
    return ModelCheckpoint(
        dirpath=run / CHECKPOINT_DIR,
        filename=BEST.removesuffix(".ckpt"),
        monitor="val/accuracy",
        mode="max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt: written at the end of the run, and in between when the last one is old enough.

    Also written when a signal asks the run to stop, which then ends. With several devices the ranks agree every few
    steps, since that costs a message; a signal to any of them stops all, at the same step.

    Args:
        run: The run's folder.
        interval: Seconds between two writes, >= 0.
        check_every: Steps between two agreements of several devices, >= 1.
        signals: What asks the run to stop.
    """

    def __init__(
        self, run: Path, interval: float = 60.0, check_every: int = 20, signals: StopSignals | None = None
    ) -> None:
        super().__init__()
        if not interval >= 0:  # written so that NaN is refused too
            raise ValueError(f"save_every must be >= 0, got {interval}")
        self.path = run / CHECKPOINT_DIR / LAST
        self.interval = interval
        self.check_every = check_every
        self.signals = signals or StopSignals()
        self._written_at = 0.0
        self._written_step = -1
        self._looked_at_step = 0
        self._step_weights: dict[str, Tensor] = {}  # as the last step left them, while the run ends

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and take the signals from Lightning."""
        self._written_at = time.monotonic()
        self._looked_at_step = trainer.global_step
        self.signals.install()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From now on there are steps to save."""
        self.signals.begin_steps()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a save is due, but only after a full optimizer step, and after the validation where one follows."""
        if not _validation_follows(trainer, batch_idx):
            self._after_batch(trainer, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a save is due that waited for this validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            with _batch_not_completed(trainer):
                self._after_batch(trainer, trainer.fit_loop.batch_idx)

    def _after_batch(self, trainer: Trainer, batch_idx: int) -> None:
        """Save within an epoch if a save is due; one due at an epoch's last batch waits for the epoch's end."""
        last = trainer.is_last_batch or batch_idx + 1 == trainer.num_training_batches
        if last or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step == trainer.max_steps or (trainer.should_stop and _may_stop(trainer)):
            # The run ends here, within an epoch: only now do the loader's place and the weights belong together.
            self._write(trainer)
            return
        if trainer.world_size == 1 or trainer.global_step - self._looked_at_step >= self.check_every:
            self._write_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a save is due, for epochs of a single step. After the last epoch `on_train_end` saves.

        A checkpoint of all steps is not written before the final weights are there: nothing is left to do for a run
        that is resumed from it.
        """
        if trainer.current_epoch + 1 != trainer.max_epochs:
            self._write_if_due(trainer)

    def _write_if_due(self, trainer: Trainer) -> None:
        """Save if the last checkpoint is old or a signal came, and stop after a signal; the same on all ranks."""
        step = self._looked_at_step = trainer.global_step
        stop = self.signals.received
        due = bool(stop) or time.monotonic() - self._written_at >= self.interval
        if trainer.world_size > 1:
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            if due:
                asked: Any = trainer.strategy.reduce(torch.tensor(stop), reduce_op="max")
                stop = int(asked)
        if due and self._written_step != step:
            self._write(trainer)
        if stop:
            saved = f"step {step} is in {self.path}"
            if multiprocessing.parent_process() is not None:  # whose parent learns the exit code and no more
                rank_zero_info(saved)
            raise Stopped(stop, saved)

    def keep_step_weights(self, module: LightningModule) -> None:
        """Keep the weights of the last step, before another callback puts averaged ones in their place."""
        self._step_weights = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final weights: those that other callbacks left, such as averaged ones."""
        # Lightning's WeightAveraging writes and validates averaged weights all along.
        averaged = bool(self._replaced_weights(pl_module)) and not _averages_all_along(trainer)
        if self._written_step != trainer.global_step:
            self._write(trainer)
        elif averaged:
            self._write_other_weights(trainer)
        self._step_weights = {}
        if averaged:
            rank_zero_info(
                f"a callback replaced the weights of the last step, by averaged ones as a rule: {self.path} holds what "
                f"it left, and {BEST}, if there is one, the weights of a single step"
            )
        self.signals.end_steps()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the weights of the last step, with which a longer run goes on, where the final ones are others."""
        replaced = self._replaced_weights(pl_module)
        if replaced:
            record = checkpoint.setdefault(RECORD_KEY, {})
            record[STEP_WEIGHTS] = replaced
            if not _averages_all_along(trainer):
                record["validation"] = {}  # nobody measured the final weights

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue with the weights of the last step."""
        weights = checkpoint.get(RECORD_KEY, {}).get(STEP_WEIGHTS)
        if weights:
            pl_module.load_state_dict(weights, strict=False)

    def _replaced_weights(self, module: LightningModule) -> dict[str, Tensor]:
        """The weights of the last step by name, where the module has others by now; else empty."""
        now = dict(module.named_parameters())
        same = all(torch.equal(tensor, now[name]) for name, tensor in self._step_weights.items())
        return {} if same else self._step_weights

    def _write_other_weights(self, trainer: Trainer) -> None:
        """Put the final weights into the checkpoint of the last step, whose place in the data is the right one."""
        final = trainer.strategy.lightning_module_state_dict()
        if trainer.is_global_zero:
            checkpoint = read_checkpoint(self.path)
            checkpoint[RECORD_KEY] |= {STEP_WEIGHTS: self._step_weights, "validation": {}}
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint | {"state_dict": final}, self.path)
        trainer.strategy.barrier()

    def _write(self, trainer: Trainer) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in trainer.lightning_module.parameters()):
            raise ValueError(diverged(trainer.global_step))
        # Flush the logs before the checkpoint: a resumed run does not log these steps again.
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
        trainer.save_checkpoint(self.path)
        self._written_at, self._written_step = time.monotonic(), trainer.global_step


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after this batch. It is not known where validations come at times of the clock."""
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    batches = trainer.fit_loop.total_batch_idx if every is None else batch_idx
    at_interval = interval is not None and (batches + 1) % interval == 0
    if not at_interval and not (trainer.should_stop and _may_stop(trainer)):
        return False  # after most batches, so before what takes longer to ask
    skips_epoch = every is not None and (trainer.current_epoch + 1) % every != 0
    validates_nothing = trainer.val_dataloaders is not None and not sum(trainer.num_val_batches)
    return trainer.enable_validation and not skips_epoch and not validates_nothing


@contextmanager
def _batch_not_completed(trainer: Trainer) -> Iterator[None]:
    """Let a checkpoint be as one of the batch's end, from which a resumed run goes on with the next batch.

    From one of a validation within an epoch, Lightning counts a step less if only the run's end was the reason to
    validate, and later points of the curves move.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.total, progress.current):
        counts.completed -= 1
    try:
        yield
    finally:
        for counts in (progress.total, progress.current):
            counts.completed += 1


def _may_stop(trainer: Trainer) -> bool:
    """Whether min_epochs and min_steps let a run end within this epoch."""
    return trainer.current_epoch >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)


def _averages_all_along(trainer: Trainer) -> bool:
    """Whether state_dict and validation are those of averaged weights during the whole run."""
    return any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]  # set by Lightning's connector


class EndOfSteps(LeanCallback):
    """Comes first at the end of a run: weights of the last step are kept before other callbacks put in averaged ones.

    Args:
        last: Keeps them.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights."""
        self.last.keep_step_weights(pl_module)


class TakeSignals(LeanCallback):
    """Takes the signals in each process that works, and back from Lightning, which takes them between setup and start.

    Args:
        signals: What asks the run to stop.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take them in this process, which may be a rank that was forked."""
        self.signals.install()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them back."""
        self.signals.install()

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start
