"""The progress bar: one line for the whole run, drawn twice a second, or a plain line now and then in a log file."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from kd_lightning.modules.optimization import planned_steps
from kd_lightning.training.signals import Stopped

# Drawing takes 2 ms, as long as a small net's step.
DRAW_SECONDS = 0.5
# Where the output is no terminal, lines stay. The time between two grows with the fit, so a long one fills no screens.
LINE_SECONDS = 10.0
LINE_SHARE = 1 / 8  # of the time since the fit began
TIME_WIDTH = len("1:00:00")  # rich shortens columns to fit the terminal; half a time would be a wrong one
_LOSSES = {"train/soft_loss": "soft", "train/hard_loss": "hard"}
_LOSS = {"train/loss": "loss"}  # where there are no such parts
_ACCURACIES = {"train/accuracy": "acc", "val/accuracy": "val acc"}


class RunProgress(ProgressBar):
    """Shows steps, time left, soft and hard loss and accuracy of a run."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._line: _Line | None = None

    def enable(self) -> None:
        """Show it; Lightning enables the bar of rank 0."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the run's line."""
        self._line = _Line(planned_steps(trainer)) if self._enabled else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step when it is time."""
        if self._line is not None and self._line.is_due():
            self._line.show(trainer.global_step, _description(trainer), trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the new validation accuracy."""
        fits = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fits and self._line is not None and self._line.is_drawn:
            self._line.show(trainer.global_step, _description(trainer), trainer.callback_metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen, after the last checkpoint is written."""
        if self._line is not None:
            self._line.show(trainer.global_step, _description(trainer), trainer.callback_metrics)
        self._end_line()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the test's line."""
        self._line = _Line(sum(trainer.num_test_batches), stays=False) if self._enabled else None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the batch when it is time."""
        if self._line is not None and self._line.is_due():
            self._line.show(batch_idx + 1, "test", trainer.callback_metrics)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the line away; the results follow."""
        self._end_line()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back; a signal saved the step that is shown last."""
        if self._line is not None and isinstance(exception, Stopped) and exception.saved:
            self._line.show(trainer.global_step, _description(trainer), trainer.callback_metrics)
        self._end_line()

    def _end_line(self) -> None:
        if self._line is not None:
            self._line.end()
        self._line = None


class _Line:
    """A line that is drawn again and again in a terminal, and printed now and then elsewhere.

    Args:
        total: Steps, maybe infinite.
        stays: Whether it stays in the terminal when it ends.
    """

    def __init__(self, total: float, *, stays: bool = True) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=TIME_WIDTH)),
            TextColumn("{task.fields[figures]}"),
        )
        self._progress = Progress(*columns, console=Console(), auto_refresh=False, transient=not stays)
        self._task = self._progress.add_task("", total=total if math.isfinite(total) else None, figures="")
        self._began = self._shown_at = time.monotonic()
        self.is_drawn = self._progress.console.is_terminal

    def is_due(self) -> bool:
        """Whether it is time to show it again."""
        now = time.monotonic()
        interval = DRAW_SECONDS if self.is_drawn else max(LINE_SECONDS, LINE_SHARE * (now - self._began))
        return now - self._shown_at >= interval

    def show(self, done: int, description: str, measured: Mapping[str, Tensor]) -> None:
        """Show it with the steps that are done and the numbers that are logged."""
        self._shown_at = time.monotonic()
        figures = _figures(measured)
        self._progress.update(self._task, completed=done, description=description, figures=figures)
        with suppress(OSError):  # on a full disk or a closed pipe: a failed print must not end the run
            if self.is_drawn:
                self._progress.start()  # not earlier: an empty bar would stand above the lines before the first step
                self._progress.refresh()
            else:
                total = self._progress.tasks[0].total
                steps = f"step {done}{f' of {total:.0f}' if total else ''}"
                print(f"{description}, {steps}{f': {figures}' if figures else ''}", flush=True)

    def end(self) -> None:
        """Give the terminal back."""
        if self.is_drawn:
            with suppress(OSError):
                self._progress.stop()


def _figures(measured: Mapping[str, Tensor]) -> str:
    losses = _LOSSES if any(key in measured for key in _LOSSES) else _LOSS
    shown = losses | _ACCURACIES
    return "  ".join(f"{name} {float(measured[key]):.3f}" for key, name in shown.items() if key in measured)


def _description(trainer: Trainer) -> str:
    total = trainer.max_epochs
    if not total or total < 0:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {min(trainer.current_epoch + 1, total)}/{total}"
