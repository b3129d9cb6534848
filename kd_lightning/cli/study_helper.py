"""Processes that do runs of a study beside the one that the user started.

They read their runs from standard input, and answer on standard output how many they have done. Their errors and
warnings go where those of the first process go.
"""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kd_lightning.runs.texts import say
from kd_lightning.training.signals import StopSignals, ignore_signals, signal_at_end_of_parent

if TYPE_CHECKING:
    from kd_lightning.cli.study import Job, Options

# Signals first, as in __main__.py: the other import takes seconds. Modules come from where this process has them from.
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from kd_lightning.training.signals import exit_on_signals
exit_on_signals()
from kd_lightning.cli.study_helper import serve
serve(parent=int(sys.argv[1]))
"""


class Helpers:
    """Processes that share the runs of a study with this one."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self._processes = processes

    def check(self) -> None:
        """End this process, too, if one of them has failed.

        Raises:
            SystemExit: With its exit code; it has said why.
            ChildProcessError: If it was killed.
        """
        for process in self._processes:
            code = process.poll() or 0
            if code < 0:
                raise ChildProcessError(
                    f"{signal.Signals(-code).name} has ended a process of this study; start the study again, "
                    "with fewer --processes if memory is short"
                )
            if code:
                sys.exit(code)

    def wait_and_count(self) -> int:
        """Wait until all of them end; how many runs they have done together."""
        answers = [process.communicate()[0].split() for process in self._processes]
        return sum(int(answer[-1]) for answer in answers if answer)

    def stop(self) -> None:
        """Stop them. Those that train save first."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with process:
                pass  # at its end it has closed the pipe and waited


@contextmanager
def helpers(count: int, study: str, jobs: Sequence["Job"], options: "Options", threads: int) -> Iterator[Helpers]:
    """Start processes that do runs of a study, and stop them at the end. If this process is killed, Linux stops them.

    Args:
        count: How many.
        study: The study's name.
        jobs: The runs, each of which one process does.
        options: Where the runs and their data are.
        threads: Threads of each process.
    """
    processes: list[subprocess.Popen[bytes]] = []
    started = Helpers(processes)
    command = [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), json.dumps(sys.path)]
    try:
        for _ in range(count):
            with tempfile.TemporaryFile() as work:
                pickle.dump((study, jobs, options, threads), work)
                work.seek(0)
                processes.append(subprocess.Popen(command, stdin=work, stdout=subprocess.PIPE))  # noqa: S603  # our own
        yield started
    finally:
        started.stop()


def serve(parent: int) -> None:
    """What such a process does.

    Args:
        parent: Number of the process that started it.
    """
    signal_at_end_of_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)
    from kd_lightning.cli.lossy_output import lossy
    from kd_lightning.cli.messages import accept_any_text, error_line
    from kd_lightning.cli.study import run_as_helper

    study, jobs, options, threads = pickle.load(sys.stdin.buffer)  # noqa: S301  # this program wrote it
    gc.freeze()  # as in __main__.py
    sys.stderr = lossy(sys.stderr)
    accept_any_text()
    answer = os.dup(1)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # for its descriptor
        os.dup2(nowhere.fileno(), 1)
    try:
        with StopSignals().installed():
            done = run_as_helper(study, jobs, options, threads)
    except Exception as error:
        line = error_line(error)
        if line is None:
            raise
        say(f"error: {line}", sys.stderr)
        sys.exit(1)
    ignore_signals()
    os.write(answer, f" {done}".encode())  # something may have printed before the descriptor was another
