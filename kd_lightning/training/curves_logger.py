"""CurvesLogger: TensorBoard's curves in an order in which the losses of distillation come first."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

# TensorBoard sorts its charts by name; these are copies under a name that comes before the others.
FIRST_CHARTS = {
    "train/soft_loss": "distillation/soft_loss_training",
    "train/hard_loss": "distillation/hard_loss_training",
    "val/soft_loss": "distillation/soft_loss_validation",
    "val/hard_loss": "distillation/hard_loss_validation",
}


class CurvesLogger(TensorBoardLogger):
    """TensorBoard's event files without the curve `epoch`, which Lightning adds to all that is logged.

    Soft and hard loss are also written under `distillation/`, which TensorBoard shows first. Other loggers get what
    Lightning gives them.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write the values of a step; arguments as in Lightning's own."""
        curves = {name: value for name, value in metrics.items() if name != "epoch"}
        first = {FIRST_CHARTS[name]: value for name, value in curves.items() if name in FIRST_CHARTS}
        super().log_metrics(first | curves, step)
