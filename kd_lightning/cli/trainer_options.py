"""Trainer options that are refused before anything is built, each with one line that gives the reason."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities import rank_zero_info

# The smallest allowed values. Lightning divides by some of them, and a negative clip would maximise the loss.
LEAST: dict[str, float] = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "gradient_clip_val": 0,
}


def refuse_numbers_out_of_range(trainer: dict[str, Any]) -> None:
    """Refuse numbers that Lightning accepts but that make no sense.

    Args:
        trainer: The configuration's part of that name.

    Raises:
        ValueError: If there is one.
    """
    for name, least in LEAST.items():
        value = trainer.get(name)
        if value is not None and not value >= least:
            raise ValueError(f"trainer.{name} must be >= {least}, got {value}")
    if trainer.get("val_check_interval") == 0:
        raise ValueError("trainer.val_check_interval must be > 0, got 0; --trainer.limit_val_batches 0 never validates")
    if trainer.get("barebones"):
        raise ValueError(
            "trainer.barebones must not be true: it switches off the checkpoints, curves and metrics that a run here "
            "consists of"
        )


def refuse_fit_without_result(trainer: dict[str, Any], *, writes: bool) -> None:
    """Refuse a fit that would make no step or write no result.

    Args:
        trainer: The configuration's part of that name.
        writes: Whether the fit writes a run's folder.

    Raises:
        ValueError: If it would.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer.get(name) == 0:
            raise ValueError(f"trainer.{name} must be above 0, got 0: no step would be made")
    if writes and trainer.get("enable_checkpointing") is False:
        raise ValueError(
            "trainer.enable_checkpointing must not be false: a run is resumed, tested and taught from by its "
            "checkpoints; for a try that writes nothing there is --dry_run true"
        )


def callbacks_for_fit(given: Sequence[Callback], *, resumes: bool, tries: bool) -> list[Callback]:
    """The configured callbacks without those that search for a setting which a resumed run has found.

    Args:
        given: As configured.
        resumes: Whether the fit resumes a checkpoint.
        tries: Whether the fit leaves no run.

    Raises:
        ValueError: If a batch size is searched for in a run: a resumed run would not know the size that was found.
    """
    if not tries and any(isinstance(callback, BatchSizeFinder) for callback in given):
        raise ValueError(
            "a run that BatchSizeFinder changed can't be resumed; find the size with --dry_run true, then give it as "
            "--data.batch_size"
        )
    kept = [callback for callback in given if not (resumes and isinstance(callback, LearningRateFinder))]
    if len(kept) < len(given):
        rank_zero_info("LearningRateFinder is left out: a resumed run keeps its learning rate")
    return kept
