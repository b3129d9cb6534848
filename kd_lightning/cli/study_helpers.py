"""Processes that do runs of a study beside the one that the user started."""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any

from kd_lightning.runs.texts import say
from kd_lightning.training.signals import signal_at_end_of_parent


@contextmanager
def helpers(count: int, work: Callable[..., int], *arguments: Any) -> Iterator[Callable[[], int]]:
    """Let further processes do a work, without output; those that still work at the end are stopped by SIGTERM.

    They also get it when this process is killed. A run that trains saves before it stops.

    Args:
        count: How many processes.
        work: What each of them does, a function of a module; it returns how many runs it has done.
        arguments: Its arguments; they are pickled.

    Yields:
        A function that waits for all of them, and gives how many runs they have done together.
    """
    context = multiprocessing.get_context("spawn")  # a forked process hangs in the threads of torch
    done: SimpleQueue[int] = context.SimpleQueue()
    processes = [context.Process(target=_help, args=(done, work, arguments)) for _ in range(count)]
    started: list[Any] = []

    def finish() -> int:
        for process in started:
            process.join()
            if process.exitcode:
                say(f"a process of this study ended early, with {process.exitcode}; others did its runs", sys.stderr)
        return sum(done.get() for _ in iter(done.empty, True))

    try:
        for process in processes:
            process.start()
            started.append(process)
        yield finish
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _help(done: "SimpleQueue[int]", work: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    signal_at_end_of_parent(signal.SIGTERM)
    gc.freeze()  # as for the process that the user started
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # a descriptor is needed
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    done.put(work(*arguments))
