"""Crash-safe checkpoints and what a run leaves in its folder."""

import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from kd_lightning.data.transfer_data import data_of, transfer_data
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.teacher_setup import TeacherSetup
from kd_lightning.modules.train_log import diverged
from kd_lightning.nets.description import parameter_count
from kd_lightning.runs.checkpoints import BEST, CHECKPOINT_DIR, LAST, RECORD_KEY
from kd_lightning.runs.files import (
    CONFIG_FILE,
    TEACHERS_FILE,
    write_atomically,
    write_json,
)
from kd_lightning.runs.resume import RESULT_FILES, run_files
from kd_lightning.teachers.ensemble import HasTeachers
from kd_lightning.teachers.npy import size_text
from kd_lightning.training.signals import Stopped, StopSignals


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then replaces: a kill never leaves a half-written checkpoint.

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
            free = shutil.disk_usage(Path(path).parent).free
            raise OSError(
                f"can't write checkpoint {path}: {size_text(free)} are free on its disk; make room and resume with "
                "--ckpt_path last, an older checkpoint is whole"
            ) from error


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
        if not interval >= 0:  # so that it refuses NaN, too
            raise ValueError(f"save_every must be >= 0, got {interval}")
        self.path = run / CHECKPOINT_DIR / LAST
        self.interval = interval
        self.check_every = check_every
        self.signals = signals or StopSignals()
        self._written_at = 0.0
        self._written_step = -1
        self._looked_at_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and take the signals from Lightning."""
        self._written_at = time.monotonic()
        self._looked_at_step = trainer.global_step
        self.signals.install()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here on there is something to save."""
        self.signals.begin_steps()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is due: never between the micro-batches of one step, nor before an epoch's validation.

        What falls due at an epoch's last batch is written after the epoch.
        """
        if batch_idx + 1 == trainer.num_training_batches or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step == trainer.max_steps or trainer.should_stop:
            # The run ends here, within an epoch: only now does the loader's place belong to the weights.
            self._write(trainer)
            return
        if trainer.world_size == 1 or trainer.global_step - self._looked_at_step >= self.check_every:
            self._write_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write when it is due, for epochs of a single batch or step."""
        self._write_if_due(trainer)

    def _write_if_due(self, trainer: Trainer) -> None:
        """Write where the last checkpoint is old or a signal came, and stop for the signal; all ranks alike."""
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
            rank_zero_info(f"asked to stop by {signal.Signals(stop).name}: step {step} is in {self.path}")
            raise Stopped(stop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final weights."""
        if self._written_step != trainer.global_step:
            self._write(trainer)
        self.signals.end_steps()

    def _write(self, trainer: Trainer) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in trainer.lightning_module.parameters()):
            raise ValueError(diverged(trainer.global_step))
        # What was logged up to here must not be younger than the checkpoint: a resumed run will not log it again.
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
        trainer.save_checkpoint(self.path)
        self._written_at, self._written_step = time.monotonic(), trainer.global_step


class TakeSignals(Callback):
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them back."""
        self.signals.install()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them back."""
        self.signals.install()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them back."""
        self.signals.install()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them back."""
        self.signals.install()


class RunRecord(Callback):
    """Writes config.yaml and teachers.json into the run's folder and keeps the time spent in training.

    Args:
        run: The run's folder.
        config: The resolved configuration, which is put into every checkpoint too.
        replaced: Files of an older run, deleted once the new one has its data and teachers.
    """

    def __init__(self, run: Path, config: dict[str, Any], replaced: Sequence[Path] = ()) -> None:
        self.run = run
        self.config = config
        self.replaced = replaced
        self._taken = False
        self._found = set(run_files(run))
        self._config_before = _stamp(run / CONFIG_FILE)
        self._earlier_seconds = 0.0  # of the runs that this one resumes
        self._started_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_at = time.monotonic()

    @rank_zero_only
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the folder: before the first epoch, when data and teachers have been found good."""
        if self._taken:
            return
        self._taken = True
        parts = (self.run / CHECKPOINT_DIR).glob(".*.part")  # a killed run's
        stale = [self.run / name for name in RESULT_FILES]  # of older weights
        for file in (*self.replaced, *parts, *stale):
            file.unlink(missing_ok=True)
        text = yaml.safe_dump(self.config, sort_keys=False)
        write_atomically(self.run / CONFIG_FILE, lambda part: part.write_text(text))
        records = pl_module.teacher_records if isinstance(pl_module, HasTeachers) else []
        if records and (trainer.global_step == 0 or not (self.run / TEACHERS_FILE).exists()):
            write_json(self.run / TEACHERS_FILE, records)

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no curves of a run that failed before its first step: they would stand in the next one's way.

        Where the run began its configuration was written. What this process knows says little: under ddp_fork the
        parent of the processes that train comes here, too.
        """
        if _stamp(self.run / CONFIG_FILE) != self._config_before:
            return
        for logger in trainer.loggers:
            logger.finalize("failed")
        for file in set(run_files(self.run)) - self._found:
            if file.suffix != ".ckpt":
                file.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration and the training time into the checkpoint."""
        record = checkpoint.setdefault(RECORD_KEY, {})
        record["config"] = self.config
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        endless = math.isinf(trainer.num_training_batches)
        record["epochs"] = None if endless else round(batches / trainer.num_training_batches, 2)
        measured = trainer.callback_metrics
        record["validation"] = {key: float(value) for key, value in measured.items() if key.startswith("val/")}
        record["train_seconds"] = self._earlier_seconds + time.monotonic() - self._started_at

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on counting the training time."""
        self._earlier_seconds = checkpoint.get(RECORD_KEY, {}).get("train_seconds", 0.0)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


class Banner(Callback):
    """Says before the first step what trains on what; the module then says what it knows of its teachers."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it."""
        net = pl_module.net if isinstance(pl_module, ClassifierModule) else pl_module
        data = transfer_data(data_of(trainer))
        described = type(data_of(trainer)).__name__ if data is None else data.describe()
        rank_zero_info(
            f"data: {described}\n"
            f"{type(pl_module).__name__}: {type(net).__name__} with {parameter_count(net):,} parameters, "
            f"{trainer.num_training_batches} steps an epoch, {trainer.estimated_stepping_batches:,} in all, "
            f"on {trainer.world_size} x {trainer.strategy.root_device}"
        )


class DryRunDone(Exception):  # noqa: N818  # not an error: all went well
    """Ends a dry run after its first step."""


class DryRun(Callback):
    """Ends the training after one step.

    Args:
        fill_store: Whether teachers' logits that are to be stored are computed; else that is only said.
    """

    def __init__(self, *, fill_store: bool) -> None:
        self.fill_store = fill_store

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the teachers run live: whether their logits would be stored is only said."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning's connector
            if isinstance(callback, TeacherSetup):
                callback.fill_store = self.fill_store

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop.

        Raises:
            DryRunDone: Always.
        """
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        rank_zero_info(f"one step of {len(batch[1])} examples done, loss {float(loss):.4f}")
        raise DryRunDone
