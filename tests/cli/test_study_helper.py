"""Processes that help with a study do its runs, say how many, and stop when they are told to."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_lightning.cli.study import Job, Options, planned
from kd_lightning.cli.study_helper import helpers
from kd_lightning.reports.studies import is_done
from kd_lightning.reports.study_file import read_study
from kd_lightning.runs.locks import claimed
from kd_lightning.training.signals import Stopped, StopSignals
from tests.cli.small_study import small_study

OPTIONS = Options(Path("runs"), None, verbose=False)


def _jobs(*rows: str, **more: Any) -> list[Job]:
    small = small_study()
    Path("study.yaml").write_text(yaml.safe_dump(small | {"seeds": 2, "set": small["set"] | more}))
    return planned(read_study(Path("study.yaml")), rows)


def test_without_helpers_none_has_done_a_run() -> None:
    for count in (0, -1):  # a study that is done has no use for even one process
        with helpers(count, "small", [], OPTIONS, threads=1) as started:
            assert started.wait_and_count() == 0


@pytest.mark.slow
def test_helpers_do_the_runs_and_count_them() -> None:
    jobs = _jobs("plain", "teacher")
    with helpers(2, "small", jobs, OPTIONS, threads=1) as started:
        assert started.wait_and_count() == len(jobs) == 4
    assert all(is_done(row.folder(OPTIONS.root, seed), {**row.settings(), "threads": 1}) for row, seed in jobs)


@pytest.mark.slow
def test_a_helper_that_fails_says_why_and_has_done_none(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = _jobs("plain", **{"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": "fast"})
    with helpers(1, "small", jobs, OPTIONS, threads=1) as started:
        assert started.wait_and_count() == 0
        with pytest.raises(SystemExit, match="1"):
            started.check()
    assert capfd.readouterr().err.startswith("error: plain-0: ")


def _children() -> set[str]:
    """Numbers of the processes that this one has started."""
    this = os.getpid()
    return set(Path(f"/proc/{this}/task/{this}/children").read_text().split())


def test_a_helper_that_is_killed_is_told() -> None:
    before = _children()
    with helpers(1, "small", [], OPTIONS, threads=1) as started:
        started.check()
        (helper,) = _children() - before
        os.kill(int(helper), signal.SIGKILL)
        assert started.wait_and_count() == 0
        with pytest.raises(ChildProcessError, match="SIGKILL has ended a process of this study; start the study again"):
            started.check()


@pytest.mark.faults
def test_a_signal_while_a_helper_trains_ends_both() -> None:
    (job, _) = _jobs("teacher", **{"trainer.max_epochs": 2000, "save_every": 0.2})
    run = job[0].folder(OPTIONS.root, 0)

    def get_signal() -> None:
        with StopSignals().installed(), helpers(1, "small", [job], OPTIONS, threads=1):
            deadline = time.monotonic() + 120
            while not (run / "checkpoints" / "last.ckpt").exists():
                assert time.monotonic() < deadline, "the run did not start"
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(Stopped):
        get_signal()
    with claimed(run.parent / ".locks" / run.name) as free:
        assert free
    assert not (run / "row.json").exists()
