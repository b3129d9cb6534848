"""What goes wrong overnight: kills, full disks, damaged files, two runs in one folder. Nothing already on disk is lost.

docs/reliability.md lists what these tests do.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage

from kd_lightning.cli.command_line import main
from kd_lightning.runs.resume import await_next_second
from kd_lightning.training.signals import LOCK_FILE, only_fit_in
from scripts.faults import ENVIRONMENT, QUICKSTART, checkpoint, curves, differences, small_disk, start

STUDENT = ["--config", str(QUICKSTART / "student.yaml"), "--model.student.hidden", "[64,64]"]
QUIET = ["--trainer.enable_progress_bar", "false"]
TRAINING_KILLS = 20  # with ten of the store's own test, thirty in all


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as in the processes that are compared with: sums depend on it in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _wait_for(file: Path, worker: "subprocess.Popen[str]", seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert worker.poll() is None, worker.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.faults
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """kill -9 while training and while writing (a write after every step): the run ends as one never killed."""
    teacher = tmp_path / "teacher"
    flags = ["--config", str(QUICKSTART / "teacher.yaml"), "--model.net.hidden", "[64]", "--trainer.max_epochs", "1"]
    assert main(["fit", *flags, "--run_dir", str(teacher), *QUIET]) == 0
    dropout = ["--model.student.dropout_hidden", "0.2", "--data.augment", "kd_lightning.Jitter"]
    taught = ["--model.teachers", str(teacher), "--model.soft_weight", "0.9", "--model.soft_targets", "stored"]
    fit = ["fit", *STUDENT, *dropout, *taught, "--trainer.max_epochs", "40", "--trainer.log_every_n_steps", "7", *QUIET]
    fit += ["--model.store.folder", str(tmp_path / "store")]
    killed_run, whole_run = tmp_path / "killed", tmp_path / "whole"
    assert main([*fit, "--run_dir", str(whole_run)]) == 0
    chance = random.Random(1)  # noqa: S311  # moments of kills, no secrets
    last, kills, steps = killed_run / "checkpoints" / "last.ckpt", 0, []
    while kills < TRAINING_KILLS:
        before = last.stat().st_mtime_ns if last.exists() else None
        with start(*fit, "--run_dir", str(killed_run), "--ckpt_path", "last", "--save_every", "0") as worker:
            while worker.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.4))
            assert worker.poll() is None, worker.communicate()[1]
            worker.kill()
        kills += 1
        steps.append(checkpoint(killed_run)["global_step"])  # whole, whatever was being written
    assert steps == sorted(steps)
    assert main([*fit, "--run_dir", str(killed_run), "--ckpt_path", "last"]) == 0
    assert not differences(killed_run, whole_run)
    assert not list((killed_run / "checkpoints").glob(".*.part"))


def test_event_files_made_in_one_second_are_read_in_their_order(tmp_path: Path) -> None:
    now = int(time.time())
    (tmp_path / f"events.out.tfevents.{now + 1}.host.1.0").touch()
    (tmp_path / "events.out.tfevents.odd").touch()
    while int(time.time()) == now:
        time.sleep(0.01)
    await_next_second(tmp_path)
    assert int(time.time()) > now + 1
    started = time.monotonic()
    await_next_second(tmp_path)  # all are older: nothing to wait for
    assert time.monotonic() - started < 0.5


@pytest.mark.faults
@pytest.mark.parametrize(
    ("signum", "code", "devices", "to"),
    [
        (signum, code, devices, to)
        for signum, code in [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)]
        for devices, to in [(1, "the process"), (2, "each rank"), (2, "one rank"), (2, "the parent")]
    ]
    + [(signal.SIGINT, 130, 1, "the process")]
    + [(signal.SIGINT, 130, 2, to) for to in ("each rank", "one rank", "the parent", "all")],
)
def test_signals_save_and_stop(signum: int, code: int, devices: int, to: str, tmp_path: Path) -> None:
    """One rank hears of it first, the other a moment later, in the middle of a step; both stop at the same one."""
    run = tmp_path / "run"
    several = ["--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
    several += ["--trainer.strategy", "ddp_fork"] if devices > 1 else []
    fit = ["fit", *STUDENT, "--run_dir", str(run), "--ckpt_path", "last"]
    with start(*fit, *several, "--trainer.max_epochs", "3000", *QUIET, "--save_every", "1") as worker:
        _wait_for(run / "checkpoints" / "last.ckpt", worker)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        ranks = [int(child) for child in children if "kd_lightning" in Path(f"/proc/{child}/cmdline").read_text()]
        asked = {
            "the process": [worker.pid],
            "the parent": [worker.pid],
            "one rank": ranks[-1:],
            "each rank": ranks,
            "all": [worker.pid, *ranks],  # as a terminal does
        }[to]
        assert asked
        for process in asked:
            with suppress(ProcessLookupError):  # they agreed before the second heard of it
                os.kill(process, signum)
            time.sleep(0.1)
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == code, said
    stopped = checkpoint(run)["global_step"]
    assert f"step {stopped} is in " in said
    more = ["--trainer.max_steps", str(stopped + 5), "--trainer.max_epochs", "-1"]
    assert main([*fit, *more, *QUIET]) == 0
    assert checkpoint(run)["global_step"] == stopped + 5


@pytest.mark.faults
def test_torchrun_restarts_a_killed_rank(tmp_path: Path) -> None:
    """kill -9 to one of two ranks: torchrun starts both again, and the run ends as one never killed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.max_epochs", "20", *QUIET]
    flags += ["--model.student.dropout_hidden", "0.2", "--data.augment", "kd_lightning.Jitter"]

    def train(run: Path) -> "subprocess.Popen[str]":
        fit = ["-m", "kd_lightning", "fit", *STUDENT, *flags, "--run_dir", str(run), "--ckpt_path", "last"]
        return subprocess.Popen(
            [*torchrun, "--max-restarts", "3", *fit, "--save_every", "0.2"],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},  # docs/cluster.md
            start_new_session=True,
        )

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with train(whole) as worker:
        _, said = worker.communicate(timeout=240)
        assert worker.returncode == 0, said
    with train(killed) as worker:
        _wait_for(killed / "checkpoints" / "last.ckpt", worker)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _, said = worker.communicate(timeout=240)
        assert worker.returncode == 0, said
    assert f"resuming {killed / 'checkpoints' / 'last.ckpt'}" in said
    assert not differences(killed, whole)


class AskedToStop(Callback):
    """Signals its own process in the third epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--data.batch_size", "4096"], ["--trainer.accumulate_grad_batches", "50"]])
def test_epochs_of_one_step_stop_too(flags: list[str], tmp_path: Path) -> None:
    fit = ["fit", *STUDENT, "--trainer.max_epochs", "5", "--trainer.log_every_n_steps", "1", *QUIET, *flags]
    asked = ["--trainer.callbacks+", "tests.test_faults.AskedToStop"]
    assert main([*fit, "--run_dir", "whole"]) == 0
    assert main([*fit, "--run_dir", "stopped", *asked]) == 75
    assert checkpoint(Path("stopped"))["global_step"] == 3
    assert main([*fit, "--run_dir", "stopped", "--ckpt_path", "last"]) == 0
    assert not differences(Path("stopped"), Path("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["time", "should_stop"])
def test_a_stop_within_an_epoch_is_resumed_exactly(way: str, tmp_path: Path) -> None:
    fit = ["fit", *STUDENT, "--trainer.max_epochs", "3", *QUIET]
    stop = {
        "time": ["--trainer.callbacks+", "tests.test_faults.OutOfTime"],
        "should_stop": ["--trainer.callbacks+", "tests.test_faults.StopAtStep"],
    }[way]
    assert main([*fit, "--run_dir", "whole"]) == 0
    assert main([*fit, "--run_dir", "stopped", *stop]) == 0
    assert 0 < checkpoint(Path("stopped"))["global_step"] < 58
    assert main([*fit, "--run_dir", "stopped", "--ckpt_path", "last"]) == 0
    assert not differences(Path("stopped"), Path("whole"), validation=False)  # Lightning validates where it stops


class StopAtStep(Callback):
    """Ends the run at step 40, as early stopping may."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == 40


class OutOfTime(Timer):
    """Lightning's own timer, whose time is up at step 40."""

    def __init__(self) -> None:
        super().__init__(duration={"hours": 1})

    def time_elapsed(self, stage: Any = RunningStage.TRAINING) -> float:
        return 7200.0 if self._steps == 40 else 0.0

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._steps = trainer.global_step
        super().on_train_batch_end(trainer, *args, **kwargs)

    _steps = 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    with small_disk(tmp_path / "disk", 4) as mounted:
        if not mounted:
            pytest.skip("a small file system can only be mounted by root")
        yield tmp_path / "disk"


@pytest.mark.faults
def test_a_full_disk_keeps_the_old_checkpoint(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = disk / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.logger", "false"]
    assert main([*fit, "--trainer.max_steps", "10"]) == 0
    before = checkpoint(run)
    (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096))
    assert main([*fit, "--trainer.max_steps", "20", "--ckpt_path", "last"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"can't write checkpoint {run / 'checkpoints' / 'last.ckpt'}: 0.0 MB are free on its disk" in line
    after = checkpoint(run)
    assert after["global_step"] == 10
    assert all(torch.equal(tensor, after["state_dict"][name]) for name, tensor in before["state_dict"].items())
    assert not list((run / "checkpoints").glob(".*.part"))
    (disk / "filler").unlink()
    assert main([*fit, "--trainer.max_steps", "20", "--ckpt_path", "last"]) == 0
    assert checkpoint(run)["global_step"] == 20


@pytest.mark.faults
def test_a_full_disk_while_the_store_is_written(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = disk.parent / "teacher"
    flags = ["--config", str(QUICKSTART / "teacher.yaml"), "--model.net.hidden", "[8]", "--trainer.max_epochs", "1"]
    assert main(["fit", *flags, "--run_dir", str(teacher), *QUIET]) == 0
    fit = ["fit", *STUDENT, "--model.teachers", str(teacher), "--model.soft_weight", "0.9", *QUIET]
    fit += [
        "--model.soft_targets",
        "stored",
        "--model.store.folder",
        str(disk / "store"),
        "--trainer.max_steps",
        "5",
    ]
    (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 65536))
    assert main([*fit, "--run_dir", str(disk.parent / "run")]) == 1
    assert "error: " in capsys.readouterr().err
    (disk / "filler").unlink()
    assert main([*fit, "--run_dir", str(disk.parent / "run")]) == 0


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # the runs are copies of one
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), *QUIET]
    assert main([*fit, "--trainer.max_steps", "5"]) == 0
    good = checkpoint(run)["global_step"]
    for name, flags in (("logged", ["--trainer.log_every_n_steps", "1"]), ("written", ["--trainer.logger", "false"])):
        other = tmp_path / name
        shutil.copytree(run, other)
        # A checkpoint whose weights are about to overflow.
        state = checkpoint(other)
        weights = state["state_dict"]
        weights[next(key for key in weights if key.endswith("weight"))].fill_(3e38)
        torch.save(state, other / "checkpoints" / "last.ckpt")
        kept = (other / "checkpoints" / "last.ckpt").read_bytes()
        more = [*fit[:-4], "--run_dir", str(other), "--ckpt_path", "last", *QUIET, "--trainer.max_steps", str(good + 9)]
        assert main([*more, "--save_every", "0", *flags]) == 1
        assert "error: the loss is no longer a finite number at step " in capsys.readouterr().err
        assert (other / "checkpoints" / "last.ckpt").read_bytes() == kept


def test_two_fits_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with only_fit_in(run):
        assert main(["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.max_steps", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: a fit is under way in {run} (process {os.getpid()} on ")
    assert not run.exists()  # neither has written anything
    assert main(["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.max_steps", "1"]) == 0
    assert (run / LOCK_FILE).is_file()


@pytest.mark.faults
def test_two_fits_started_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), "--ckpt_path", "last", *QUIET, "--trainer.max_epochs", "150"]
    workers = [start(*fit) for _ in range(2)]
    results = [(*worker.communicate(timeout=120), worker.returncode) for worker in workers]
    assert sorted(code for *_, code in results) == [0, 1]
    (refusal,) = [err for _, err, code in results if code == 1]
    assert "a fit is under way" in refusal
    assert main(["fit", *STUDENT, "--run_dir", str(tmp_path / "single"), *QUIET, "--trainer.max_epochs", "150"]) == 0
    assert not differences(run, tmp_path / "single")


@pytest.mark.slow
def test_a_damaged_event_file_stops_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.log_every_n_steps", "1"]
    assert main([*fit, "--trainer.max_steps", "5"]) == 0
    (events,) = run.glob("events.out.tfevents.*")
    events.write_bytes(events.read_bytes()[:-7] + b"torn")
    assert main([*fit, "--trainer.max_steps", "8", "--ckpt_path", "last"]) == 0
    assert checkpoint(run)["global_step"] == 8
    assert main(["report", str(run), "--output", str(tmp_path / "out")]) == 0
    assert max(step for step, _ in curves(run)["train/loss"]) == 7  # steps are counted from 0


def test_a_run_killed_before_its_first_checkpoint_draws_each_step_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.log_every_n_steps", "1"]
    fit += ["--trainer.max_steps", "3"]
    assert main(fit) == 0
    shutil.rmtree(run / "checkpoints")
    assert main([*fit, "--ckpt_path", "last"]) == 0
    assert [step for step, _ in curves(run)["train/loss"]] == [0, 1, 2]


@pytest.mark.slow
def test_a_clock_that_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    fit = ["fit", *STUDENT, "--run_dir", str(run), *QUIET, "--trainer.log_every_n_steps", "1"]
    assert main([*fit, "--trainer.max_steps", "5"]) == 0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    assert main([*fit, "--trainer.max_steps", "8", "--ckpt_path", "last"]) == 0
    monkeypatch.undo()
    assert [step for step, _ in sorted(curves(run)["train/loss"])] == list(range(8))
    assert checkpoint(run)["kd_lightning"]["train_seconds"] > 0


def test_a_read_only_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")  # root may write anywhere, but not below a file
    assert main(["fit", *STUDENT, "--run_dir", str(blocked / "run"), *QUIET, "--trainer.max_steps", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(blocked) in line
