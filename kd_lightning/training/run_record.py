"""The record of a run: its configuration, its teachers and its training time."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.optimization import planned_steps
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, RECORD_KEY
from kd_lightning.runs.files import (
    CONFIG_FILE,
    TEACHERS_FILE,
    write_json,
    write_text,
)
from kd_lightning.runs.hardware import hardware_of
from kd_lightning.runs.resume import RESULT_FILES, run_files
from kd_lightning.teachers.ensemble import HasTeachers


class RunRecord(LeanCallback):
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
        self._earlier_hardware: list[str] = []
        self._earlier_validation: dict[str, float] = {}
        self._started_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_at = time.monotonic()

    @rank_zero_only
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write into the folder, just before the first step, after data and teachers were checked."""
        if self._taken:
            return
        self._taken = True
        parts = (self.run / CHECKPOINT_DIR).glob(".*.part")  # a killed run's
        stale = [self.run / name for name in RESULT_FILES]  # of older weights
        for file in (*self.replaced, *parts, *stale):
            file.unlink(missing_ok=True)
        write_text(self.run / CONFIG_FILE, yaml.safe_dump(self.config, sort_keys=False))
        records = pl_module.teacher_records if isinstance(pl_module, HasTeachers) else []
        if records and (trainer.global_step == 0 or not (self.run / TEACHERS_FILE).exists()):
            write_json(self.run / TEACHERS_FILE, records)

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Delete the curves of a run that failed before its first step: they would block the next one.

        The written configuration shows that the first step was reached: under ddp_fork this method also runs in the
        parent process, which does not train. Where another fit has the folder's lock, the files may be its own.
        """
        if isinstance(exception, BlockingIOError) or _stamp(self.run / CONFIG_FILE) != self._config_before:
            return
        for logger in trainer.loggers:
            logger.finalize("failed")
        for file in set(run_files(self.run)) - self._found:
            if file.suffix != ".ckpt":
                file.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration, the training time and the hardware into the checkpoint."""
        record = checkpoint.setdefault(RECORD_KEY, {})
        record["config"] = self.config
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        endless = math.isinf(trainer.num_training_batches)
        planned = planned_steps(trainer)
        record["planned_steps"] = None if math.isinf(planned) else planned
        record["epochs"] = None if endless else round(batches / trainer.num_training_batches, 2)
        measured = trainer.callback_metrics
        latest = {key: float(value) for key, value in measured.items() if key.startswith("val/")}
        record["validation"] = latest or self._earlier_validation
        record["hardware"] = ", then ".join(dict.fromkeys([*self._earlier_hardware, hardware_of(pl_module.device)]))
        record["train_seconds"] = self._earlier_seconds + time.monotonic() - self._started_at

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue to count the training time; the latest validation holds until there is another one."""
        record = checkpoint.get(RECORD_KEY, {})
        self._earlier_seconds = record.get("train_seconds", 0.0)
        self._earlier_hardware = [name for name in record.get("hardware", "").split(", then ") if name]
        self._earlier_validation = record.get("validation", {})


def _stamp(path: Path) -> tuple[int, int] | None:
    """Values that change when the file is written again; None if there is no file."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
