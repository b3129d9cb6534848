"""The parts of a trainer whose fit leaves a run: plugins, logger and callbacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback

from kd_lightning.runs.checkpoints import CHECKPOINT_DIR
from kd_lightning.runs.files import EVENT_FILES
from kd_lightning.runs.resume import await_next_second
from kd_lightning.training.beforehand import WarnOfTeachers
from kd_lightning.training.curves_logger import CurvesLogger
from kd_lightning.training.dashboard import Dashboard
from kd_lightning.training.last_checkpoint import AtomicCheckpointIO, LastCheckpoint, best_checkpoint
from kd_lightning.training.resuming import Ending, ResumedCallbacks
from kd_lightning.training.run_record import RunRecord
from kd_lightning.training.signals import StopSignals


def as_list(value: Any) -> list[Any]:  # Any: a configuration's value
    """A configured part of the trainer that is absent, one object, or a list of objects, as a list."""
    if not value:
        return []
    return value if isinstance(value, list) else [value]


def with_run_plugins(given: Sequence[Any]) -> list[Any]:  # Any: Lightning's plugins have no common class
    """The configured plugins, then those of a run."""
    # Lightning's own requeueing saves inside the signal handler; training/signals.py does it between two steps.
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() and not given else []
    return [*given, AtomicCheckpointIO(), *slurm]


def curves_logger(run: Path, resumed_step: int | None) -> CurvesLogger:
    """The logger of TensorBoard's event files.

    Args:
        run: The run's folder.
        resumed_step: The step after which the run is resumed; None for a new run.
    """
    # Steps that a killed run logged after its last checkpoint, or before its first, are trained again: drop them.
    purge_step = resumed_step
    if purge_step is None and any(run.glob(EVENT_FILES)):
        purge_step = 0
    await_next_second(run)
    return CurvesLogger(run, name="", version="", default_hp_metric=False, purge_step=purge_step, flush_secs=10)


def ending(run: Path, resumed_step: int | None, *, keeps_checkpoints: bool) -> Ending:
    """The callback that says how the fit ended; a resumed run's folder has a checkpoint even if no step is made."""
    if resumed_step is None:
        return Ending()
    has_checkpoint = keeps_checkpoints and any((run / CHECKPOINT_DIR).glob("*.ckpt"))
    return Ending(resumed_step, has_checkpoint=has_checkpoint)


def callbacks_of_run(
    run: Path,
    config: dict[str, Any],
    *,
    typed: Sequence[str],
    replaced: list[Path],
    signals: StopSignals | None,
    save_every: float,
    pictures_every: int,
) -> list[Callback]:
    """The callbacks of a fit that leaves a run.

    Args:
        run: The run's folder.
        config: The resolved configuration.
        typed: The command line, for TensorBoard.
        replaced: Files of an older run, which the fit deletes when it starts.
        signals: What asks the run to stop.
        save_every: Seconds between two writes of last.ckpt, >= 0.
        pictures_every: Epochs between two sets of pictures, >= 0; 0 for the last only.
    """
    return [
        WarnOfTeachers(run, config),
        RunRecord(run, config, replaced),
        ResumedCallbacks(config),
        best_checkpoint(run),
        LastCheckpoint(run, interval=save_every, signals=signals),
        Dashboard(config, typed, pictures_every),
    ]
