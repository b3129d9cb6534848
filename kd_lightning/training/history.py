"""History: what a fit logged, in memory, for a script or a notebook."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from kd_lightning.reports import plots
from kd_lightning.reports.curves import Curve, charts_of
from kd_lightning.runs.files import write_atomically

_NO_CURVES = {"epoch", "step"}  # what Lightning adds to the metrics


class History(Logger):
    """A logger that keeps the curves in memory. It writes no file; in a notebook it shows itself as a picture.

    Attributes:
        curves: Steps and values by name, such as train/soft_loss, train/hard_loss, val/accuracy.

    Example:
        >>> history = History()
        >>> Trainer(max_epochs=10, logger=history).fit(student, data)
        >>> steps, values = history.curves["train/soft_loss"]
        >>> history.save_picture("losses.png")
    """

    def __init__(self) -> None:
        super().__init__()
        self.curves: dict[str, Curve] = {}

    @property
    def name(self) -> str:
        """The same for all."""
        return "history"

    @property
    def version(self) -> int:
        """The same for all."""
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add the values of a step; arguments as in Lightning's own."""
        for key, value in metrics.items():
            if key not in _NO_CURVES:
                steps, values = self.curves.setdefault(key, ([], []))
                steps.append(step or 0)
                values.append(float(value))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # Any: Lightning's own signature
        """Keep nothing: settings are no curves."""

    def figure(self) -> Figure:
        """The losses over the steps: soft and hard, training and validation."""
        chart = next(iter(charts_of(self.curves)), None)
        return plots.curves(chart.curves if chart else {}, "nats (soft: T² · nats)", log=chart.log if chart else False)

    def save_picture(self, path: str | Path) -> None:
        """Write the picture of the losses as a PNG file."""
        content = plots.as_png(self.figure())
        write_atomically(Path(path), lambda part: part.write_bytes(content))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return plots.as_png(self.figure())
