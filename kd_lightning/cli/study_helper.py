"""Processes that do runs of a study beside the one that the user started.

They get the runs on standard input, and answer on standard output how many they have done. Their errors and warnings
go where those of the first process go.
"""

import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kd_lightning.training.signals import StopSignals, ignore_signals, signal_at_end_of_parent

if TYPE_CHECKING:
    from kd_lightning.cli.study import Job, Options

# Signals first, as in __main__.py: the other import takes seconds.
_PROGRAM = """
from kd_lightning.training.signals import exit_on_signals
exit_on_signals()
from kd_lightning.cli.study_helper import run
run()
"""


class Helpers:
    """Processes that share the runs of a study with this one."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self._processes = processes

    def done(self) -> int:
        """Wait until all of them end; how many runs they have done together."""
        answers = [process.communicate()[0] for process in self._processes]
        return sum(int(answer) for answer in answers if answer)  # one that failed gives none, and its runs are free

    def stop(self) -> None:
        """Stop them. Those that train save first."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with process:
                pass  # at its end it has closed the pipe and waited


@contextmanager
def helpers(count: int, study: str, jobs: Sequence["Job"], options: "Options", threads: int) -> Iterator[Helpers]:
    """Start processes that do runs of a study, and stop them at the end; if this process is killed, Linux does.

    Args:
        count: How many.
        study: The study's name.
        jobs: The runs, each of which one process does.
        options: Where the runs and their data are.
        threads: Threads of each process.
    """
    processes: list[subprocess.Popen[bytes]] = []
    others = Helpers(processes)
    try:
        for _ in range(count):
            with tempfile.TemporaryFile() as work:
                pickle.dump((study, jobs, options, threads), work)
                work.seek(0)
                command = [sys.executable, "-c", _PROGRAM, str(os.getpid())]
                processes.append(subprocess.Popen(command, stdin=work, stdout=subprocess.PIPE))  # noqa: S603  # our own
        yield others
    finally:
        others.stop()


def run() -> None:
    """What such a process does."""
    signal_at_end_of_parent(signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it ended before the kernel knew
        os._exit(1)
    from kd_lightning.cli.lossy_output import lossy
    from kd_lightning.cli.study import do_shared

    study, jobs, options, threads = pickle.load(sys.stdin.buffer)  # noqa: S301  # this program wrote it
    gc.freeze()  # as in __main__.py
    sys.stderr = lossy(sys.stderr)
    answer = os.dup(1)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # for its descriptor
        os.dup2(nowhere.fileno(), 1)
    with StopSignals().installed():
        done = do_shared(study, jobs, options, threads)
    ignore_signals()
    os.write(answer, str(done).encode())
