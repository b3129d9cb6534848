"""The kinds of trials of scripts.reliability: each is a function that disturbs a command and notes what was lost."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.runs.files import CONFIG_FILE
from scripts.faults import contents, curves, differences, fill_up, session_processes, small_disk
from scripts.trial import EXPORTS, TooLateError, Trial, Worker

# As docs/reliability.md promises them; not imported from the package, which is tested.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGHUP: 129, signal.SIGINT: 130}
AT_ONCE = 15.0  # seconds in which a signal must end a run, on a machine that is busy with another trial
DISK = 24  # megabytes of the small disk, about four times what a run writes
FILE_LIMIT = 16_384  # bytes of a file, where no small disk can be mounted: less than any checkpoint


class Kind(NamedTuple):
    """A kind of trial.

    Attributes:
        what: What is done, for people.
        compared: What is compared.
        times: How often it is tried.
        run: Does it once.
    """

    what: str
    compared: str
    times: int
    run: Callable[[Trial], None]


KINDS: dict[str, Kind] = {}
RUNS = "weights, optimizer, curves, best.ckpt"
STORES = f"the stored soft targets; {RUNS}"


def kind(name: str, times: int, what: str, compared: str, **fixed: Any) -> Callable[[Any], Any]:
    """Register a function as a kind of trial, with these of its arguments.

    Where it stands several times over one function, the lowest comes first in the table.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        KINDS[name] = Kind(what, compared, times, partial(function, **fixed))
        return function

    return register


@kind("kill-store", 8, "kill -9 while the store of soft targets is filled", STORES, command="fill")
@kind("kill-ddp", 6, "kill -9 of a fit by two processes, ddp: all or one", RUNS, command="fit-ddp")
@kind("kill-fork", 6, "kill -9 of a fit by two processes, ddp_fork: all or one", RUNS, command="fit-fork")
@kind("kill-fit", 16, "kill -9 of a fit", RUNS, command="fit")
def kill_fit(trial: Trial, command: str) -> None:
    """Kill a fit and give the command again; it has saved after each step, each 0.2 s, or only at its end."""
    give_store(trial, command)
    every = trial.chance.choice(["0", "0.2", "60"])
    trial.how.append(f"--save_every {every}")
    trial.disturb(command, partial(send, trial, signal.SIGKILL, one="anyone"), "--save_every", every)
    trial.finish(command)


@kind("kill-report", 6, "kill -9 of report over an older page", "all files after the kill, and after a second report")
@kind("kill-test", 6, "kill -9 of test over older figures", "all files after the kill, and after a second test")
@kind("kill-export", 6, "kill -9 of export over an older file", "all files after the kill, and after a second export")
def kill_reader(trial: Trial) -> None:
    """Kill a command that reads a finished run and writes over what it wrote before, and give it again."""
    finished, run = trial.undisturbed.finished().run, trial.place.run
    shutil.copytree(finished, run)
    command = trial.name.removeprefix("kill-")
    command = f"export-{trial.chance.choice(EXPORTS)}" if command == "export" else command
    trial.disturb(command, partial(send, trial, signal.SIGKILL))
    expected = contents(finished)
    trial.lost += [f"{name} after the kill" for name in differing(contents(run), expected)]
    trial.expect(trial.end(trial.start(command)), 0)
    trial.lost += [f"{name} after a second {command}" for name in differing(contents(run), expected)]
    drawn = curves(run)
    trial.lost += [f"curve {tag}" for tag, points in curves(finished).items() if set(points) != set(drawn.get(tag, []))]
    trial.left += trial.unfinished()


@kind("signal-store", 8, "the same while the store is filled", f"exit code, time; {STORES}", command="fill")
@kind("signal-ddp", 4, "the same with two processes, ddp", f"exit code; {RUNS}", command="fit-ddp")
@kind("signal-fork", 4, "the same with two processes, ddp_fork", f"exit code; {RUNS}", command="fit-fork")
@kind("signal-fit", 16, "SIGTERM, SIGUSR1, SIGHUP, Ctrl-C at any moment of a fit", f"exit code; {RUNS}", command="fit")
def stop_fit(trial: Trial, command: str) -> None:
    """Ask a fit to stop by each signal in turn: all its processes, as a terminal does, or the one that was started."""
    give_store(trial, command)
    signum = list(EXIT_CODES)[trial.number % len(EXIT_CODES)]
    code = trial.disturb(command, partial(send, trial, signum, one="the first"), anywhere=command == "fit")
    seconds = time.monotonic() - trial.acted_at
    through = code == 0 and not differences(trial.place.run, trial.undisturbed.get(command).place.run)
    if not through:  # it may come after the last step
        trial.expect(code, EXIT_CODES[signum])
    # Nothing is worth waiting for before the first step. In the second half of the filling it may just be through.
    early = command == "fill" and trial.moment < trial.undisturbed.get("fill").window / 2
    if early and (trial.place.run / CONFIG_FILE).exists():
        trial.lost.append(f"{signum.name} came while the store was filled, and it went on until it trained")
    if seconds > AT_ONCE:
        trial.lost.append(f"{signum.name} took {seconds:.0f} s")
    trial.finish(command)


@kind("full-disk-store", 4, "disk full while the store is filled", f"one line of error; {STORES}", command="fill")
@kind("full-disk-fit", 4, "disk full in a fit", f"one line of error; {RUNS}", command="fit")
def full_disk(trial: Trial, command: str) -> None:
    """Fill a small disk to its last byte, or forbid larger files where none can be mounted; then make room."""
    disk = trial.folder / "disk"
    with small_disk(disk, DISK) as mounted:
        trial.place.run = disk / "run"
        give_store(trial, command, disk)
        act: Callable[[Worker], object] = (lambda _: fill_up(disk)) if mounted else forbid_large_files
        trial.how.append("no space left" if mounted else "no large files")
        code = trial.disturb(command, act, "--save_every", "0.2")
        if code == 0:
            raise TooLateError  # nothing more was to be written
        trial.expect(code, 1)
        if not trial.error_line().startswith("error:"):
            trial.lost.append(f"the error is no line: {trial.error_line()}")
        trial.lost += [f"{name} stayed on the full disk" for name in trial.unfinished()]
        (disk / "filler").unlink(missing_ok=True)
        trial.finish(command)


@kind("log", 6, "a log that can't be written: /dev/full, a pipe that closes", f"exit code; {RUNS}")
def unwritable_log(trial: Trial) -> None:
    """Train with nobody to read what is printed."""
    lines = trial.chance.randrange(1, 6)
    way = ["2>/dev/full", ">/dev/full 2>&1", f"2>&1 | head -n {lines}"][trial.number % 3]
    bar = ["--trainer.enable_progress_bar", "true"]
    trial.how.append(way)
    if "head" in way:
        with subprocess.Popen(["head", "-n", str(lines)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as head:  # noqa: S603, S607
            worker = trial.start("fit", *bar, stdout=head.stdin, stderr=head.stdin)
    else:
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            worker = trial.start("fit", *bar, stdout=full if way.startswith(">") else None, stderr=full)
    trial.expect(trial.end(worker), 0)
    trial.lost += differences(trial.place.run, trial.undisturbed.get("fit").place.run)


@kind("moved", 4, "kill -9 of a fit, its folder moved or copied, resumed there", RUNS)
def moved(trial: Trial) -> None:
    """Resume a run in another folder."""
    trial.disturb("fit", partial(send, trial, signal.SIGKILL), "--save_every", "0.2")
    run, trial.place.run = trial.place.run, trial.folder / "elsewhere" / "run"
    if trial.chance.random() < 0.5:
        trial.how.append("moved")
        trial.place.run.parent.mkdir()
        run.rename(trial.place.run)
    else:
        trial.how.append("copied")
        shutil.copytree(run, trial.place.run)
    trial.finish("fit")


@kind("two-jobs", 4, "two fits in one folder, started within three seconds", f"one is refused in one line; {RUNS}")
def two_jobs(trial: Trial) -> None:
    """Start two fits in one folder."""
    workers, ended = [], []
    later = trial.chance.uniform(0, 3)
    trial.how.append(f"{later:.2f} s apart")
    for pause in (later, 0):
        workers.append((trial.start("fit"), trial.log))
        time.sleep(pause)
    for worker, log in workers:
        ended.append((trial.end(worker), log.read_text(encoding="utf-8")))
    codes = sorted(code for code, _ in ended)
    if codes != [0, 1] or "error: a fit is under way" not in max(ended)[1]:
        trial.lost.append(f"exit codes {codes}")
    trial.lost += differences(trial.place.run, trial.undisturbed.get("fit").place.run)


def give_store(trial: Trial, command: str, folder: Path | None = None) -> None:
    """Let the trial fill a store of its own, where that is what is disturbed."""
    if command == "fill":
        trial.place.store = (folder or trial.folder) / "store"


def send(trial: Trial, signum: signal.Signals, worker: Worker, one: str = "") -> None:
    """Signal all processes of a command, or one: `the first`, or `anyone`; none of them where it has but one."""
    processes = session_processes(worker.pid)
    if one and len(processes) > 1 and trial.chance.random() < 0.5:
        place = 0 if one == "the first" else trial.chance.randrange(len(processes))
        trial.how.append(f"process {place + 1} of {len(processes)}")
        processes = processes[place : place + 1]
    trial.how.append(signum.name)
    for process in processes:
        with suppress(ProcessLookupError):  # it ended with the one before
            os.kill(process, signum)


def forbid_large_files(worker: Worker) -> None:
    """Have each write behind the first bytes of a file fail."""
    for process in session_processes(worker.pid):
        resource.prlimit(process, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))


def differing(found: dict[str, object], expected: dict[str, object]) -> list[str]:
    """Names of the files that are not as expected."""
    return [name for name, content in expected.items() if found.get(name) != content]
