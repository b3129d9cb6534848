"""Stopping a run from outside: by signals, or when its launcher died. Also the lock of a run's folder.

Imports nothing that takes time: a signal may come while torch and Lightning are being imported.
"""

import ctypes
import fcntl
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

LOCK_FILE = ".lock"
# Exit code of a process after the signal. 143, 130 and 129 are the shell's own for SIGTERM, Ctrl-C and a closed
# terminal; 75 is sysexits.h's "try again later", which tells a job script to requeue: the scheduler's time limit is
# near.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130, signal.SIGHUP: 129}
# Number of the process that starts the other ranks of a node under `ddp`; they find it in their environment.
LAUNCHER = "KD_LIGHTNING_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# A rank may get the same signal from the terminal and from its launcher. A later one is a new request.
_SAME_WISH_SECONDS = 1.0
# Lightning's launcher looks every 5 s whether a rank ended with another code than 0, and then kills the run's others.
_LAUNCHER_ENDS_WITHIN_SECONDS = 10.0


class Stopped(SystemExit):
    """A signal asked the run to stop, and it has saved what there was to save.

    It is a SystemExit, so that no `except Exception` catches it and a forked rank ends with its code.

    Args:
        signum: The signal.
        saved: What was saved where, for people; empty where nothing was.
    """

    def __init__(self, signum: int, saved: str = "") -> None:
        self.signal = signal.Signals(signum)
        self.saved = saved
        super().__init__(EXIT_CODES[self.signal])


class StopSignals:
    """Takes over SIGTERM, SIGUSR1, SIGHUP and Ctrl-C.

    While a net trains, a signal is only stored, and the run checks for it between two steps. At any other time there is
    nothing to save, and the signal raises `Stopped` at once.

    Lightning's own handlers save inside the signal handler, in the middle of a step, which can repeat a batch or wait
    for ever: https://github.com/Lightning-AI/pytorch-lightning/issues/21406
    """

    def __init__(self) -> None:
        self.received = 0  # the first signal's number, 0 for none
        self._received_at = 0.0
        self._first_process = self._process = os.getpid()
        self._looks_between_steps = False
        self._ignored: frozenset[signal.Signals] | None = None

    def install(self) -> None:
        """Install the handlers in this process. Only the main thread can; in other threads nothing is done.

        Signals that are ignored from the start stay ignored, as `nohup` and a job script's `trap "" USR1` expect.
        Ctrl-C is the exception: shells ignore it for background jobs, and torch sends it to ranks whose parent has
        died.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if self._ignored is None:
            self._ignored = _ignored_signals()
        self._process = os.getpid()
        for signum in EXIT_CODES.keys() - self._ignored:
            signal.signal(signum, self._note)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the handlers, and restore the former ones at the end.

        Raises:
            Stopped: If a signal came after the last check of a run that is one of a study.
        """
        before = {signum: signal.getsignal(signum) for signum in EXIT_CODES}
        self.install()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for signum, handler in before.items():
                    signal.signal(signum, handler)
                outer = before.get(signal.Signals(self.received)) if self.received else None
                if isinstance(getattr(outer, "__self__", None), StopSignals):
                    signal.raise_signal(self.received)

    def begin_steps(self) -> None:
        """From now on this process checks for signals between its steps."""
        self._looks_between_steps = True

    def end_steps(self) -> None:
        """This process no longer checks for signals: everything is saved."""
        self._looks_between_steps = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process and multiprocessing.current_process().daemon:
            return  # a data loader's worker, which ends with the process that it works for
        first = not self.received
        again = self.received == signum and time.monotonic() - self._received_at > _SAME_WISH_SECONDS
        if not (first or again):
            return
        if first:
            self.received, self._received_at = signum, time.monotonic()
        if not self._looks_between_steps:
            self._end(signum, again=again)
        elif signum == signal.SIGINT:
            if again:
                raise KeyboardInterrupt
            if os.environ.get("LOCAL_RANK", "0") == "0":
                _write_line(
                    "\n" * os.isatty(2)
                    + "stopping after this step; Ctrl-C again stops at once and loses what is not saved"
                )

    def _end(self, signum: int, *, again: bool) -> None:
        """Pass the signal on to the other processes of the run and end, or wait for others to end.

        A process that forked ranks waits for them. A rank of `ddp` continues until its launcher ends, which ends the
        rank too: the launcher may be waiting for all ranks to meet, in a call that no signal interrupts.

        Raises:
            Stopped: If there is nobody to wait for.
            KeyboardInterrupt: If it waits for ranks and Ctrl-C comes again.
        """
        ranks = [child for child in multiprocessing.active_children() if not child.daemon]
        forked = os.getppid() == self._first_process
        launcher = os.getppid() if forked else _launcher()
        for process in (*(rank.pid for rank in ranks), launcher):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process, signum)
        if not ranks and (launcher is None or forked):
            raise Stopped(signum)
        if ranks and again and signum == signal.SIGINT:
            raise KeyboardInterrupt


def exit_on_signals() -> None:
    """End at once with the signal's exit code: for the seconds of the imports, when nothing needs cleaning up.

    A rank of `ddp` leaves it to its launcher, which is past them and may be waiting for the rank.
    """

    def end(signum: int, _: FrameType | None) -> None:
        launcher = _launcher()
        if launcher is None:
            os._exit(EXIT_CODES[signal.Signals(signum)])
        with suppress(ProcessLookupError):
            os.kill(launcher, signum)

    for signum in EXIT_CODES.keys() - _ignored_signals():
        signal.signal(signum, end)


def ignore_signals() -> None:
    """Let no signal change the exit code any more: the work is done, and Python is about to end."""
    for signum in EXIT_CODES:
        signal.signal(signum, signal.SIG_IGN)


def let_launcher_end_first() -> None:
    """Have a stopped rank wait until the process that started it has ended too, but not for long.

    Otherwise that process, seeing a rank with another exit code than 0, kills itself before it gives its own.
    """
    ends = time.monotonic() + _LAUNCHER_ENDS_WITHIN_SECONDS
    while _launcher() is not None and time.monotonic() < ends:
        time.sleep(0.05)


def end_with_launcher() -> None:
    """Let the kernel kill this rank when the process that started it ends for any reason.

    Under `ddp` the process that the user started is rank 0, which starts the others. If it is killed before all ranks
    are connected, torch lets the others wait half an hour. Only Linux can signal them.
    """
    if not _is_started_rank():
        os.environ[LAUNCHER] = str(os.getpid())
        return
    launcher = os.environ.get(LAUNCHER, "")
    if not launcher.isdigit():
        return
    signal_at_end_of_parent(signal.SIGKILL)
    if os.getppid() != int(launcher):  # it ended before the kernel knew
        _write_line(f"error: the process that started this rank, {launcher}, has ended")
        os._exit(1)


def signal_at_end_of_parent(signum: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent ends for any reason; only Linux can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


@contextmanager
def only_fit_in(run: Path) -> Iterator[None]:
    """Lock a run's folder for one fit; the system releases the lock when the process ends for any reason.

    Args:
        run: The run's folder, made where it is missing.

    Raises:
        BlockingIOError: If another fit has the lock.
    """
    from lightning.pytorch.utilities import rank_zero_info

    path = run / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BlockingIOError(
                f"a fit is under way in {run} ({holder}); wait for it, or choose another folder"
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
            with suppress(OSError):  # there was no lock
                # Closing the file is not enough where workers of data loaders have it open too.
                fcntl.flock(file, fcntl.LOCK_UN)


def _ignored_signals() -> frozenset[signal.Signals]:
    """The signals that this process ignores, except Ctrl-C."""
    ignored = {signum for signum in EXIT_CODES if signal.getsignal(signum) is signal.SIG_IGN}
    return frozenset(ignored - {signal.SIGINT})


def _launcher() -> int | None:
    """The process that started this rank under `ddp`; None where torchrun or a scheduler did, or it is no rank."""
    parent = os.getppid()
    return parent if _is_started_rank() and os.environ.get(LAUNCHER) == str(parent) else None


def _is_started_rank() -> bool:
    """Whether Lightning started this process as a further rank; torchrun ends its own ranks itself."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ


def _write_line(text: str) -> None:
    """Write to stderr from within a signal, where Python's own streams may be in the middle of a write."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
