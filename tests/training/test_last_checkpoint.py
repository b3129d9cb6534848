"""When and how last.ckpt is written."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.cli.command_line import main
from kd_lightning.training.last_checkpoint import LastCheckpoint
from scripts.faults import QUICKSTART, checkpoint, curves, differences

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


@pytest.mark.slow
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


class Interrupts(Callback):
    """Lets something happen at a step.

    Args:
        step: The step.
        how: A `signal` comes, the `end` is asked for, or the process is `killed` in the validation after the step.
    """

    def __init__(self, step: int, how: str) -> None:
        self.step = step
        self.how = how

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and self.how == "signal":
            signal.raise_signal(signal.SIGTERM)
        trainer.should_stop |= trainer.global_step == self.step and self.how == "end"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self.step and self.how == "killed":
            raise ValueError("killed")


def _fit_validating(run: str, *flags: str, interrupts: dict[str, Any] | None = None) -> int:
    """A fit of 9 steps an epoch, with a validation after every fourth."""
    own = [{"class_path": f"{__name__}.Interrupts", "init_args": interrupts}]
    callbacks = ["--trainer.callbacks", json.dumps(own)] if interrupts else []
    often = ["--trainer.val_check_interval", "4", "--data.batch_size", "400", "--trainer.log_every_n_steps", "1"]
    quiet = ["--trainer.enable_progress_bar", "false", "--model.student.hidden", "[8]"]
    student = ["--config", str(QUICKSTART / "student.yaml"), "--trainer.max_epochs", "2"]
    return main(["fit", *student, "--run_dir", run, "--ckpt_path", "last", *often, *quiet, *callbacks, *flags])


@pytest.mark.slow
def test_no_validation_within_an_epoch_is_lost() -> None:
    assert _fit_validating("whole") == 0
    assert [step for step, _ in curves(Path("whole"))["val/loss"]] == [3, 7, 12, 16]
    for how, code in (("signal", 143), ("killed", 1)):
        assert _fit_validating(how, "--save_every", "0", interrupts={"step": 8, "how": how}) == code
        assert _fit_validating(how) == 0
        assert differences(Path(how), Path("whole")) == [], how


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 6])
def test_the_validation_at_the_end_of_a_run_is_in_its_checkpoint(step: int) -> None:
    """Whether it was due at this step or not; a longer run goes on as if it had not ended."""
    run = Path("run")
    assert _fit_validating("run", interrupts={"step": step, "how": "end"}) == 0
    ((*_, (_, loss)), ended) = curves(run)["val/loss"], checkpoint(run)
    assert ended["global_step"] == step
    assert ended["kd_lightning"]["validation"]["val/loss"] == pytest.approx(loss)
    assert _fit_validating("run") == 0
    assert _fit_validating("whole") == 0
    found = {tag: dict(points) for tag, points in curves(run).items()}
    for tag, points in curves(Path("whole")).items():
        assert dict(points).items() <= found[tag].items(), tag
    assert "last.ckpt: state_dict" not in differences(run, Path("whole"))


@pytest.mark.slow
def test_a_run_of_max_steps_keeps_its_last_validation() -> None:
    assert _fit_validating("run", "--trainer.max_steps", "4", "--trainer.max_epochs", "-1") == 0
    ((_, accuracy),) = curves(Path("run"))["val/accuracy"]
    assert checkpoint(Path("run"))["kd_lightning"]["validation"]["val/accuracy"] == pytest.approx(accuracy)
