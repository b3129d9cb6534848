"""Trainer options that are refused: one line each, before anything is written."""

from pathlib import Path

import pytest

from kd_lightning.cli import main

STUDENT = ["fit", "--config", str(Path(__file__).parents[2] / "configs" / "quickstart" / "student.yaml")]
STUDENT += ["--model.student.hidden", "[8]", "--trainer.enable_progress_bar", "false", "--run_dir", "run"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trainer.max_epochs", "0"], "trainer.max_epochs must be above 0, got 0: no step would be made"),
        (["--trainer.max_steps", "0"], "trainer.max_steps must be above 0, got 0: no step would be made"),
        (["--trainer.limit_train_batches", "0"], "trainer.limit_train_batches must be above 0, got 0"),
        (["--trainer.enable_checkpointing", "false"], "trainer.enable_checkpointing must not be false: a run is"),
        (["--trainer.barebones", "true"], "trainer.barebones must not be true: it switches off"),
        (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches must be >= 1, got 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch must be >= 1, got 0"),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval must be > 0, got 0"),
        (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val must be >= 0, got -1"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "[0,1]"], "should be an int > 0. Got devices [0, 1]."),
        (
            ["--trainer.callbacks+", "lightning.pytorch.callbacks.BatchSizeFinder"],
            "a run that BatchSizeFinder changed can't be resumed; find the size with --dry_run true",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*STUDENT, *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not Path("run").exists()


def test_a_try_needs_no_checkpoints() -> None:
    assert main([*STUDENT, "--trainer.enable_checkpointing", "false", "--trainer.fast_dev_run", "true"]) == 0
