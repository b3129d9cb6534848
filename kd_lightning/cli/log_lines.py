"""Lightning's and our log lines: without what the user can't act on, and broken between words."""

import logging
import os
import warnings
from typing import TextIO

from kd_lightning.runs.texts import wrapped


def silence_known_warnings() -> None:
    """Silence warnings about things that the user can't change."""
    # Lightning asks torch for a check that torch 2.14 calls deprecated.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # An evaluation needs neither the callbacks that wrote the checkpoint nor, next to averages, the steps' weights.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings(
        "ignore", message=".*WeightAveraging callback, but loading a checkpoint outside the 'fit'.*"
    )
    # A run without a validation split has an empty list of validation loaders.
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")
    # Short epochs are logged once each, see classifier.py; a resumed run goes on in its folder; and outside a job
    # there is no use for srun.
    in_job = "SLURM_JOB_ID" in os.environ
    for text in (
        "The number of training batches",
        "Checkpoint directory .* exists and is not empty",
        *([] if in_job else ["The `srun` command"]),
    ):
        warnings.filterwarnings("ignore", message=text)
    for name in (
        "",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.logger_connector",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "tensorboard",
    ):
        logging.getLogger(name or None).addFilter(_of_use)


class WordWrap(logging.Formatter):
    """Breaks log lines between words where they go to a terminal.

    Args:
        handler: Prints them.
    """

    def __init__(self, handler: logging.StreamHandler[TextIO]) -> None:
        super().__init__()
        self._handler = handler

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return wrapped(super().format(record), self._handler.stream)


def wrap_log_lines() -> None:
    """Have the lines of Lightning and of this package broken between words on a terminal."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.formatter is None:
                handler.setFormatter(WordWrap(handler))


# Advertisements, and lines that repeat the banner, the progress bar or the last lines of a run.
_OF_NO_USE = (
    "Tip: For seamless",
    "weights_only",
    "Seed set to",
    "GPU available: False",
    "TPU available: False",
    "Loading `train_dataloader` to estimate",
    "`Trainer.fit` stopped: `max_",
    "Restoring states from",
    "Restored all states",
    "Loaded model weights",
    "`Trainer(barebones=True)`",  # export builds a trainer for the data module's sake
    "Please consider to run pre-processing before quantization",
    "out of order event.step",  # a resumed run's curves; the steps in question are dropped on purpose
)


def _of_use(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _OF_NO_USE)
