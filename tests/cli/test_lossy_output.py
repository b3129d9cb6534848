"""What can't be printed ends no run and changes no exit code."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.cli.lossy_output import lossy, output_may_be_lost
from scripts.faults import ENVIRONMENT, QUICKSTART, checkpoint, start

STUDENT = ["fit", "--config", str(QUICKSTART / "student.yaml"), "--model.student.hidden", "[16]"]


def _full_disk() -> TextIO:
    return Path("/dev/full").open("w", encoding="utf-8")


def _closed_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", encoding="utf-8")


@pytest.mark.parametrize("broken", [_full_disk, _closed_pipe])
def test_lines_that_cannot_be_written_are_lost(broken: Callable[[], TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    with broken() as stream:
        for name in ("stdout", "__stdout__", "stderr", "__stderr__"):
            monkeypatch.setattr(sys, name, stream)
        with output_may_be_lost():
            print("lost", flush=True)
            print("lost too", file=sys.stderr)
            print("lost at the end")
        assert sys.stdout is stream
        assert sys.stderr is stream


def test_lines_that_can_be_written_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log"
    with file.open("w", encoding="ascii", errors="backslashreplace") as stream:
        monkeypatch.setattr(sys, "__stdout__", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        print("before")
        with output_may_be_lost():
            print("within \N{SNOWMAN}")
        print("after")
    assert file.read_text() == "before\nwithin \\u2603\nafter\n"


def test_streams_of_others_are_left_alone() -> None:
    stream = io.StringIO()
    assert lossy(stream) is stream


def test_the_last_checkpoint_comes_before_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, steps = tmp_path / "run", list[int]()

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("epoch"):
                steps.append(checkpoint(run)["global_step"])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main([*STUDENT, "--run_dir", str(run), "--trainer.max_steps", "2"]) == 0
    assert steps == [2]


@pytest.mark.faults
@pytest.mark.parametrize("how", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written(how: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with _full_disk() if how == "full disk" else _closed_pipe() as log:
        fit = [*STUDENT, "--run_dir", str(run)]
        assert start(*fit, "--trainer.max_steps", "5", stdout=log, stderr=log).wait(120) == 0
        assert start("test", "--ckpt_path", str(run), stdout=log, stderr=log).wait(120) == 0
        assert (run / "metrics.json").is_file()
        worker = start(*fit, "--ckpt_path", "last", "--trainer.max_epochs", "3000", stdout=log, stderr=log)
        before = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
        deadline = time.monotonic() + 120
        while not list(run.glob("events*")) or (run / "config.yaml").stat().st_mtime_ns < before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)  # the configuration is written just before the first step
        worker.send_signal(signal.SIGUSR1)
        assert worker.wait(120) == 75
        assert checkpoint(run)["global_step"] > 5
        assert start("fit", "--config", "nowhere.yaml", stdout=log, stderr=log).wait(120) == 1


@pytest.mark.slow
def test_what_is_a_commands_result_is_not_lost_in_silence() -> None:
    command = [sys.executable, "-m", "kd_lightning", "completion", "bash"]
    with _full_disk() as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode != 0
