"""Signals at any time of a run, and ranks whose launcher died."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.cli.command_line import main
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.nets.digits import MLP
from kd_lightning.runs.resume import run_files
from kd_lightning.training.signals import EXIT_CODES, LAUNCHER, Stopped, StopSignals, let_launcher_end_first
from scripts.faults import ENVIRONMENT, QUICKSTART, checkpoint, session_processes, start

STUDENT = ["--config", str(QUICKSTART / "student.yaml"), "--model.student.hidden", "[16]"]
QUIET = ["--trainer.enable_progress_bar", "false"]
# Examples of the first batch that the teachers are checked on, and of one that a store is filled with.
CHECKED, FILLED = 400, 1000


class Asked:
    """What a net or a data module is to signal to its own process, once."""

    signum: ClassVar[int] = 0
    batch: ClassVar[int] = 0

    @classmethod
    def now(cls, batch: int) -> None:
        if cls.signum and batch == cls.batch:
            signum, cls.signum = cls.signum, 0
            os.kill(os.getpid(), signum)


class AskingNet(MLP):
    """Signals at a batch of a certain size."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        Asked.now(len(inputs))
        logits: torch.Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]  # torch's
        return logits


class AskingData(MNISTDataModule):
    """Signals while the data is read."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        Asked.now(-1)


class AskingCallback(Callback):
    """Signals in the third epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            Asked.now(0)


@pytest.fixture(autouse=True)
def hang_up_is_heard() -> Iterator[None]:
    """Under nohup a closed terminal is ignored from the start, here and in what is started here."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def set_up(signum: int, batch: int) -> None:
        monkeypatch.setattr(Asked, "signum", signum)
        monkeypatch.setattr(Asked, "batch", batch)

    return set_up


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    net = ["--model.net", "tests.training.test_signals.AskingNet", "--model.net.hidden", "[16]"]
    fit = ["fit", "--config", str(QUICKSTART / "teacher.yaml"), *net, "--trainer.max_epochs", "1", *QUIET]
    assert main([*fit, "--data.augment", "null", "--run_dir", str(run)]) == 0
    return run


@pytest.mark.parametrize(
    ("signum", "batch", "prepare"),
    [
        pytest.param(signal.SIGTERM, -1, "false", id="data"),
        pytest.param(signal.SIGUSR1, CHECKED, "false", id="teachers"),
        pytest.param(signal.SIGTERM, FILLED, "false", id="store"),
        pytest.param(signal.SIGUSR1, FILLED, "true", id="prepare"),
    ],
)
def test_a_signal_before_the_first_step_ends_the_run_at_once(
    signum: signal.Signals,
    batch: int,
    prepare: str,
    teacher: Path,
    tmp_path: Path,
    ask: Callable[[int, int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    taught = ["--model.teachers", str(teacher), "--model.soft_weight", "0.9", "--model.soft_targets", "stored"]
    data = [
        "--data",
        "tests.training.test_signals.AskingData",
        "--data.dataset",
        "mnist5k",
        "--data.val_size",
        str(CHECKED),
    ]
    fit = ["fit", *STUDENT, *taught, "--model.store.folder", str(store), *data, "--run_dir", str(run), *QUIET]
    ask(signum, batch)
    assert main([*fit, "--prepare", prepare]) == EXIT_CODES[signum]
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped by {signum.name}"
    assert not list(run_files(run))
    assert not list(store.glob("*/store.json"))
    assert signal.getsignal(signum) is signal.SIG_DFL


def test_a_signal_ends_a_test_at_once(
    teacher: Path, ask: Callable[[int, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(signal.SIGTERM, FILLED)
    assert main(["test", "--ckpt_path", str(teacher), *QUIET]) == EXIT_CODES[signal.SIGTERM]
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert not (teacher / "metrics.json").exists()


def test_a_closed_terminal_saves_and_stops(
    tmp_path: Path, ask: Callable[[int, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    ask(signal.SIGHUP, 0)
    fit = ["fit", *STUDENT, "--trainer.max_epochs", "4", "--data.batch_size", "4096", "--run_dir", str(run)]
    assert main([*fit, "--trainer.callbacks+", "tests.training.test_signals.AskingCallback"]) == 129
    assert checkpoint(run)["global_step"] == 3
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("epoch 3/4, step 3 of 4: ")
    assert shown.err.splitlines()[-1] == f"stopped by SIGHUP: step 3 is in {run}/checkpoints/last.ckpt"


def test_a_stopped_fit_says_how_to_go_on(
    tmp_path: Path,
    ask: Callable[[int, int], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(signal.SIGTERM, 0)
    fit = ["fit", *STUDENT, "--trainer.max_epochs", "4", "--data.batch_size", "4096", *QUIET]
    fit += ["--run_dir", str(tmp_path / "run"), "--trainer.callbacks+", "tests.training.test_signals.AskingCallback"]
    program = ["python", "-m", "kd_lightning"]
    monkeypatch.setattr(sys, "argv", [*program[:1], *fit])
    monkeypatch.setattr(sys, "orig_argv", [*program, *fit])
    assert main() == 143
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"next: {shlex.join([*program, *fit])} --ckpt_path last"


def test_a_signal_that_is_ignored_from_the_start_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = StopSignals()
    with signals.installed():
        signals.install()  # as after Lightning's own
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
    assert stopped.value.code == 75
    assert signals.received == signal.SIGUSR1


def test_between_two_steps_a_signal_is_only_noted() -> None:
    signals = StopSignals()
    with signals.installed():
        signals.begin_steps()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # the same wish again
    assert signals.received == signal.SIGTERM


IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.meta_path.insert(0, Finder())
from kd_lightning.__main__ import run
run()
"""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_during_the_imports_ends_with_its_code(name: str) -> None:
    command = [sys.executable, "-c", IMPORTING, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (EXIT_CODES[signal.Signals[name]], "")


RANK = """
import sys, time
from kd_lightning.training.signals import end_with_launcher
end_with_launcher()
print("waiting", flush=True)
time.sleep(60)
"""
RANK_ZERO = f"""
import os, signal, subprocess, sys, time
from kd_lightning.training.signals import end_with_launcher
end_with_launcher()
command = [sys.executable, "-c", '''{RANK}''']
rank = subprocess.Popen(command, env=os.environ | {{"LOCAL_RANK": "1"}}, stdout=subprocess.PIPE, text=True)
rank.stdout.readline()
print(rank.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_signal_after_the_work_changes_no_exit_code() -> None:
    late = "atexit.register(os.kill, os.getpid(), signal.SIGUSR1)"
    program = f"import atexit, os, signal, sys; {late}; sys.argv[1:] = ['report', 'nowhere']"
    command = [sys.executable, "-c", f"{program}; from kd_lightning.__main__ import run; run()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 1, done.stderr


def test_a_rank_ends_with_the_process_that_started_it() -> None:
    command = [sys.executable, "-c", RANK_ZERO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    _wait_until_ended(int(done.stdout))


def test_a_rank_whose_launcher_is_gone_does_not_begin() -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    environment = ENVIRONMENT | {"LOCAL_RANK": "1", LAUNCHER: gone.stdout.decode().strip()}
    command = [sys.executable, "-c", RANK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: the process that started this rank" in done.stderr


def _wait_until_ended(process: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    with suppress(FileNotFoundError):
        while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.faults
def test_kill_of_rank_0_before_the_ranks_have_met_leaves_no_rank(tmp_path: Path) -> None:
    several = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with start("fit", *STUDENT, *several, *QUIET, "--run_dir", str(tmp_path / "run")) as worker:
        deadline = time.monotonic() + 60
        while len(ranks := session_processes(worker.pid)) < 2:
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.kill()
        worker.communicate(timeout=60)
    for rank in ranks[1:]:
        _wait_until_ended(rank)


@pytest.mark.parametrize(
    ("started_by", "rank", "waits"), [("parent", "1", True), ("other", "1", False), ("parent", "0", False)]
)
def test_a_stopped_rank_waits_for_its_launcher_but_not_for_long(
    started_by: str, rank: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Lightning sees the rank's exit code first, and kills the launcher before it gives its own."""
    monkeypatch.setattr("kd_lightning.training.signals._LAUNCHER_ENDS_WITHIN_SECONDS", 0.2)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv(LAUNCHER, str(os.getppid()) if started_by == "parent" else "1000000000")
    began = time.monotonic()
    let_launcher_end_first()
    assert (time.monotonic() - began >= 0.2) == waits


def test_a_rank_of_ddp_leaves_a_signal_before_the_first_step_to_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher may be waiting for the rank in a call that no signal interrupts: the rank must still come."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, signum: sent.append((process, signum)))
    monkeypatch.setenv(LAUNCHER, str(os.getppid()))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with StopSignals().installed():
        signal.raise_signal(signal.SIGTERM)
    assert sent == [(os.getppid(), signal.SIGTERM)]
    monkeypatch.setenv("LOCAL_RANK", "0")
    with StopSignals().installed(), pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("strategy", "to"), [("ddp_fork", "parent"), ("ddp_fork", "rank"), ("ddp", "parent"), ("ddp", "rank")]
)
def test_a_signal_before_the_first_step_ends_all_ranks(strategy: str, to: str, teacher: Path, tmp_path: Path) -> None:
    """While they fill the store; under `ddp` the parent is rank 0."""
    taught = ["--model.teachers", str(teacher), "--model.soft_weight", "0.9", "--model.soft_targets", "stored"]
    taught += ["--model.store.folder", str(tmp_path / "store"), "--data.augment", "kd_lightning.Affine"]
    taught += ["--data.augment.views", "400", "--trainer.num_sanity_val_steps", "0"]
    several = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", strategy]
    with start("fit", *STUDENT, *taught, *several, *QUIET, "--run_dir", str(tmp_path / "run")) as worker:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("store/*/blocks/*.block")):
            assert worker.poll() is None, worker.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        processes = session_processes(worker.pid)
        os.kill(processes[0 if to == "parent" else -1], signal.SIGTERM)
        _, said = worker.communicate(timeout=20)
    assert worker.returncode == 143, said
    assert not list(run_files(tmp_path / "run"))
    for process in processes:
        _wait_until_ended(process)


def test_a_study_hears_of_a_signal_that_its_run_no_longer_looked_for() -> None:
    run = StopSignals()

    def run_that_ends() -> None:
        with run.installed():
            run.begin_steps()
            signal.raise_signal(signal.SIGTERM)  # the run has looked for the last time

    with StopSignals().installed(), pytest.raises(Stopped) as stopped:
        run_that_ends()
    assert stopped.value.code == 143


def test_a_finished_run_of_its_own_ends_well_after_a_late_signal() -> None:
    run = StopSignals()
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("passed on"))
    try:
        with run.installed():
            run.begin_steps()
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
