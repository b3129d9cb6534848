"""When and how last.ckpt is written."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.training.last_checkpoint import LastCheckpoint
from scripts.faults import QUICKSTART, checkpoint

FIT = ["fit", "--config", str(QUICKSTART / "student.yaml"), "--model.student.hidden", "[16]"]
FIT += ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false", "--trainer.limit_val_batches", "0"]


@contextmanager
def _small_disk() -> Iterator[None]:
    """A limit on the size of files, at which writes fail as on a full disk; a checkpoint here takes 160 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_promises_an_older_checkpoint_only_where_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fit = [*FIT, "--run_dir", str(run), "--ckpt_path", "last", "--trainer.max_steps"]
    with _small_disk():
        assert main([*fit, "1"]) == 1
    said = capsys.readouterr().err
    assert f"can't write checkpoint {run / 'checkpoints' / 'last.ckpt'}: " in said
    assert "resume with --ckpt_path last, from the first step, as no checkpoint was written before" in said
    assert main([*fit, "1"]) == 0
    with _small_disk():
        assert main([*fit, "2"]) == 1
    assert "resume with --ckpt_path last, an older checkpoint is whole" in capsys.readouterr().err
    assert checkpoint(run)["global_step"] == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_the_time_between_two_checkpoints_is_checked(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"save_every must be >= 0, got {seconds}"):
        LastCheckpoint(tmp_path, interval=seconds)
