"""Stopping a run from outside: signals that ask for it, and one fit at a time in a folder."""

import fcntl
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lightning.pytorch.utilities import rank_zero_info

LOCK_FILE = ".lock"
# What a process ends with after the signal. 143 is the shell's own for SIGTERM; 75 is sysexits.h's "try again later",
# by which a job script knows that it should requeue: the scheduler said that the time is up. 130 is the shell's for
# Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130}


class Stopped(Exception):  # noqa: N818  # what was asked for, not an error
    """The run was asked to stop and has written its checkpoint.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = EXIT_CODES[signal.Signals(signum)]


class StopSignals:
    """Notes SIGTERM, SIGUSR1 and Ctrl-C; the run looks between two steps, when nothing is half done.

    Lightning's own handlers work inside the signal: they write a checkpoint, or talk to other ranks, while a step is
    under way, which repeats a batch or waits for ever:
    https://github.com/Lightning-AI/pytorch-lightning/issues/21406
    """

    def __init__(self) -> None:
        self.received = 0  # the first signal's number, 0 for none
        self._received_at = 0.0
        self._process = 0  # that took the signals over
        self._trains = False

    def install(self, *, trains: bool) -> None:
        """Take the signals over; only the main thread can, and elsewhere nothing is done.

        Args:
            trains: Whether this process looks between its steps. One that only started the processes that train hands
                the signal on to them; where there is nothing to save yet, Ctrl-C interrupts at once.
        """
        self._trains, self._process = trains, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for signum in EXIT_CODES:
                signal.signal(signum, self._note)

    def begin_steps(self) -> None:
        """Say that from now on this process looks between its steps."""
        self._trains = True

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a rank that has not begun looks later; a data loader's worker never does
            self.received = self.received or signum
            return
        children = [] if self._trains else multiprocessing.active_children()
        if signum == signal.SIGINT:
            # Both the terminal and the parent tell a rank: within a second it is the same wish.
            again = self.received == signum and time.monotonic() - self._received_at > 1
            if again or not (self._trains or children):
                raise KeyboardInterrupt
            if not self.received:
                rank_zero_info("stopping after this step; Ctrl-C again stops at once and loses what is not saved")
        if not self.received:
            self.received, self._received_at = signum, time.monotonic()
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signum)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Note signals from now on, and put the former handlers back at the end."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {signum: signal.getsignal(signum) for signum in EXIT_CODES}
    signals.install(trains=False)
    try:
        yield signals
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def only_fit_in(run: Path) -> Iterator[None]:
    """Hold a run's folder for one fit; the system gives it back when the process ends, however it ends.

    Raises:
        BlockingIOError: If another fit holds it.
    """
    path = run / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BlockingIOError(
                f"a fit is under way in {run} ({holder}); wait for it, or choose another --run_dir"
            ) from error
        except OSError as error:  # Lustre and NFS may be mounted without locks
            rank_zero_info(f"no lock on {run}, so nothing keeps a second fit out: {error}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            if [other.name for other in run.iterdir()] == [LOCK_FILE]:  # the fit failed before it wrote anything
                path.unlink()
                run.rmdir()
