"""Callbacks of a run: checkpoints, records, progress, dashboards, signals; from Python, `keep_run` and `History`."""

from kd_lightning.training.history import History
from kd_lightning.training.run_folder import keep_run

__all__ = ["History", "keep_run"]
