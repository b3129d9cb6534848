"""What a study shows: a line per finished run, and on a terminal a bar over the whole."""

import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kd_lightning.runs.texts import counted, noun_for, wrapped
from kd_lightning.training.beforehand import LOGGER

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


class StudyConsole:
    """Shows how far a study is.

    Args:
        study: Its name.
        runs: Names of all of its runs.
        left: How many of them are to be done.
        verbose: Whether the runs print all their output; then there is no bar.
    """

    def __init__(self, study: str, runs: Sequence[str], left: int, verbose: bool) -> None:
        # The file as it is now: while a run trains, sys.stdout is another one, see `quiet`.
        self.console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._width = max(len(name) for name in runs) - 2
        self._waits = False
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with_bar = self.console.is_terminal and left > 0 and not verbose
        self._once = _Once(self._above_bar if with_bar else None)
        self._bar = Progress(*columns, console=self.console, refresh_per_second=1, transient=True, disable=not with_bar)
        self._task = self._bar.add_task(study, total=len(runs), completed=len(runs) - left)
        done = f", {len(runs) - left} done before" if left < len(runs) else ""
        self.console.print(f"{study}: {counted(len(runs), 'run')}{done}")

    def __enter__(self) -> Self:
        self._bar.start()
        LOGGER.addFilter(self._once)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        LOGGER.removeFilter(self._once)
        self._bar.stop()

    def begin(self, run: str) -> None:
        """Say which run trains."""
        self._waits = False
        self._bar.update(self._task, description=run)

    def finished(self, row: str, seed: int, measured: dict[str, Any]) -> None:
        """A line about a finished run."""
        errors, seconds = measured["errors"], measured["train_seconds"]
        noun = noun_for(errors, "error")
        self.console.print(f"{row:<{self._width}} seed {seed:<3} {errors:>6,} {noun:<6} {seconds:>8.1f} s")
        self._bar.advance(self._task)

    def _above_bar(self, line: str) -> None:
        self.console.print(wrapped(line, self.console.file))

    def wait(self) -> None:
        """Print once that other processes work on all runs that could start now."""
        if not self._waits:
            self._waits = True
            self._bar.update(self._task, description="waiting")
            self.console.print("waiting for runs of another process")


class _Once(logging.Filter):
    """Lets each line through once: the runs of a row are warned of the same teacher.

    Args:
        show: Prints the lines instead, where a bar is drawn.
    """

    def __init__(self, show: Callable[[str], None] | None) -> None:
        super().__init__()
        self._show = show
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is a new one that is left to others to print."""
        line = record.getMessage()
        new = line not in self._said
        self._said.add(line)
        if new and self._show is not None:
            self._show(line)
            return False
        return new


@contextmanager
def quiet() -> Iterator[None]:
    """Hide a run's tables and log lines; warnings and errors are shown."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
