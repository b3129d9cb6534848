"""One trial: a command that is disturbed at a random moment, and what is found after it; see scripts.reliability."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kd_lightning.runs.files import CONFIG_FILE
from kd_lightning.training.signals import LOCK_FILE
from scripts.faults import QUICKSTART, Output, contents, differences, session_processes, start

# How a fit may be spread over processes; `fill` is a fit that fills a store of its own.
_TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy"]
FITS = {"fit": [], "fit-fork": [*_TWO, "ddp_fork"], "fit-ddp": [*_TWO, "ddp"], "fill": []}
EXPORTS = ("safetensors", "pt2", "onnx")
PATIENCE = 120.0  # seconds after which a process that was disturbed must have ended
WHOLE = 600.0  # seconds in which a whole command must have ended
START = 0.5  # seconds that Python takes before it can listen to signals

Worker = subprocess.Popen[str]


class TooLateError(Exception):
    """The command had ended before it could be disturbed, so nothing was tried."""


class Place:
    """Where a run and the store that it reads lie, and the commands about them."""

    def __init__(self, run: Path, teacher: Path, store: Path) -> None:
        self.run, self.teacher, self.store = run, teacher, store

    def command(self, name: str) -> list[str]:
        """The arguments of a command: one of FITS, test, report or an export."""
        if name == "test":
            return ["test", "--ckpt_path", str(self.run)]
        if name == "report":
            return ["report", str(self.run)]
        if name not in FITS:
            return ["export", str(self.run), "--format", name.removeprefix("export-"), "--overwrite", "true"]
        fit = ["fit", "--config", str(QUICKSTART / "student.yaml"), "--run_dir", str(self.run), "--ckpt_path", "last"]
        fit += ["--model.student.hidden", "[64,64]", "--model.student.dropout_hidden", "0.2"]
        fit += ["--data.augment", "kd_lightning.Jitter", "--model.teachers", str(self.teacher)]
        fit += ["--model.soft_weight", "0.9", "--model.soft_targets", "stored", "--model.store.folder", str(self.store)]
        fit += ["--trainer.max_epochs", "30", "--trainer.log_every_n_steps", "7"]
        return [*fit, "--trainer.enable_progress_bar", "false", *FITS[name]]

    def begins(self, name: str) -> Callable[[], bool]:
        """Whether a command has started to write what can be lost: the run, the store, or its first file."""
        if name == "fill":
            return lambda: self.store.is_dir() and any(self.store.iterdir())
        if name in FITS:
            return (self.run / LOCK_FILE).exists
        before = self._stamps()
        return lambda: self._stamps() != before

    def ends(self, name: str) -> Callable[[], bool]:
        """Whether it has finished writing; False if that is the command's end."""
        return (self.run / CONFIG_FILE).exists if name == "fill" else lambda: False

    def tables(self) -> dict[str, object]:
        """The stored soft targets."""
        return {name: value for name, value in contents(self.store).items() if not name.endswith(".json")}

    def _stamps(self) -> dict[Path, int]:
        return {entry: entry.lstat().st_mtime_ns for entry in self.run.iterdir() if entry.exists()}


class Reference(NamedTuple):
    """A command that nothing disturbed.

    Attributes:
        place: Where its results are.
        life: Seconds from the start of its process to the end.
        window: Seconds between what `Place.begins` and `Place.ends` tell.
    """

    place: Place
    life: float
    window: float


class Undisturbed:
    """The commands that nothing disturbs; each is run when it is first asked for.

    Args:
        root: Empty folder for them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._done: dict[str, Reference] = {}
        self._lock = threading.RLock()

    def get(self, name: str) -> Reference:
        """The command of this name, done."""
        with self._lock:
            if name not in self._done:
                self._done[name] = self._measure(name)
            return self._done[name]

    @property
    def teacher(self) -> Path:
        """A trained teacher."""
        folder = self.root / "teacher"
        with self._lock:
            if not folder.exists():
                flags = ["--model.net.hidden", "[400,400]", "--trainer.max_epochs", "2", "--run_dir", str(folder)]
                _must_end_well(start("fit", "--config", str(QUICKSTART / "teacher.yaml"), *flags))
        return folder

    def finished(self) -> Place:
        """A run that was tested, exported and reported."""
        for name in ("test", *(f"export-{kind}" for kind in EXPORTS), "report"):
            self.get(name)
        return self._done["report"].place

    def _measure(self, name: str) -> Reference:
        if name in FITS:
            store = self.root / "store" if name == "fill" else self.get("fill").place.store
            place = Place(self.root / name / "run", self.teacher, store)
        else:
            place = Place(self.root / "finished" / "run", self.teacher, self.get("fit").place.store)
            if not place.run.exists():
                shutil.copytree(self.get("fit").place.run, place.run)
        begins, ends = place.begins(name), place.ends(name)
        times = [time.monotonic()]
        worker = start(*place.command(name), stdout=subprocess.DEVNULL)
        for sign in (begins, ends):
            while worker.poll() is None and not sign():
                time.sleep(0.005)
            times.append(time.monotonic())
        _must_end_well(worker)
        return Reference(place, time.monotonic() - times[0], times[2] - times[1])


class Trial:
    """A command, what disturbs it, and what is found after it.

    Args:
        name: Its kind.
        number: Counts the trials of a kind from 0.
        folder: Made for it.
        undisturbed: What its result is compared with.
        chance: Gives its random moments.
    """

    def __init__(self, name: str, number: int, folder: Path, undisturbed: Undisturbed, chance: random.Random) -> None:
        self.name, self.number, self.folder = name, number, folder
        self.undisturbed, self.chance = undisturbed, chance
        self.place = Place(folder / "run", undisturbed.teacher, undisturbed.get("fill").place.store)
        self.how: list[str] = []  # what was done to it
        self.lost: list[str] = []
        self.left: list[str] = []  # files that stayed behind, though nothing was lost
        self.moment = 0.0  # seconds after the command's start or beginning at which it was disturbed
        self.acted_at = 0.0  # the clock then
        self._logs = 0
        folder.mkdir(parents=True)

    def start(self, name: str, *flags: str, stdout: Output = None, stderr: Output = None) -> Worker:
        """Start a command; what it prints goes to a log of its own, but for what is to go elsewhere."""
        self._logs += 1
        with self.log.open("w", encoding="utf-8") as log:
            return start(*self.place.command(name), *flags, stdout=stdout or log, stderr=stderr or log)

    def disturb(self, name: str, act: Callable[[Worker], object], *flags: str, anywhere: bool = False) -> int:
        """Start a command, do something to it at a random moment, and wait for its end.

        Args:
            name: The command.
            act: What to do, given the process.
            flags: Further arguments.
            anywhere: Whether the moment may come before there is something to lose.

        Returns:
            The exit code as a shell sees it.

        Raises:
            TooLateError: If the command had ended well before.
        """
        reference = self.undisturbed.get(name)
        begins = self.place.begins(name)
        worker = self.start(name, *flags)
        while not anywhere and worker.poll() is None and not begins():
            time.sleep(0.001)
        earliest, latest = (START, reference.life) if anywhere else (0, reference.window)
        self.moment = self.chance.uniform(earliest, latest)
        time.sleep(self.moment)
        if worker.poll() is not None:
            return self._ended_by_itself(worker)
        self.how.append(f"{self.moment:.2f} s after {'the start' if anywhere else 'it had begun'}")
        self.acted_at = time.monotonic()
        act(worker)
        return self.end(worker, PATIENCE)

    def end(self, worker: Worker, patience: float = WHOLE) -> int:
        """Wait until all processes of a command have ended; its exit code as a shell sees it."""
        deadline = time.monotonic() + patience
        while (running := session_processes(worker.pid)) and time.monotonic() < deadline:
            worker.poll()
            time.sleep(0.05)
        if running:
            self.lost.append(f"{len(running)} processes still ran {patience:.0f} s later")
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        code = worker.wait()
        return code if code >= 0 else 128 - code

    def expect(self, code: int, *expected: int) -> None:
        """Note an exit code that should not be."""
        if code not in expected:
            self.lost.append(f"exit code {code} instead of {' or '.join(map(str, expected))}: {self.error_line()}")

    def error_line(self) -> str:
        """The error that the last command ended with, or its last line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1])

    def finish(self, name: str) -> None:
        """Give the command again, undisturbed, and note what differs from one that was never disturbed."""
        reference = self.undisturbed.get(name).place
        self.expect(self.end(self.start(name)), 0)
        if "looking for an older one" in self.log.read_text(encoding="utf-8"):
            self.lost.append("last.ckpt was damaged")
        self.lost += differences(self.place.run, reference.run)
        if name == "fill" and self.place.tables() != reference.tables():
            self.lost.append("the stored soft targets differ")
        self.left += self.unfinished()

    def unfinished(self) -> list[str]:
        """Names of the unfinished files in the run and the store, without the number of the process."""
        parts = [part.name for folder in (self.place.run, self.place.store) for part in folder.rglob(".*part")]
        return [re.sub(r"\.\d+\.", ".N.", name) for name in parts]

    @property
    def log(self) -> Path:
        """What the last command printed."""
        return self.folder / f"{self._logs}.log"

    def _ended_by_itself(self, worker: Worker) -> int:
        code = self.end(worker)
        if code == 0:
            raise TooLateError
        self.how.append("undisturbed")
        return code


def _must_end_well(worker: Worker) -> None:
    _, output = worker.communicate(timeout=WHOLE)
    if worker.returncode:
        sys.exit(f"error: a command that nothing disturbed ended with {worker.returncode}: {output}")
