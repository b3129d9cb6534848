"""What is added to a trainer whose fit leaves a run."""

from pathlib import Path

from kd_lightning.training.last_checkpoint import AtomicCheckpointIO
from kd_lightning.training.run_parts import as_list, curves_logger, with_run_plugins


def test_a_part_of_the_trainer_may_be_absent_one_object_or_a_list() -> None:
    assert as_list(None) == as_list([]) == []
    assert as_list("one") == ["one"]
    assert as_list(["one", "two"]) == ["one", "two"]


def test_configured_plugins_come_first() -> None:
    first, checkpoints = with_run_plugins(["precision"])
    assert first == "precision"
    assert isinstance(checkpoints, AtomicCheckpointIO)


def test_steps_that_are_trained_again_are_dropped_from_older_curves() -> None:
    run = Path("run")
    run.mkdir()
    assert curves_logger(run, None)._kwargs["purge_step"] is None
    assert curves_logger(run, 7)._kwargs["purge_step"] == 7
    (run / "events.out.tfevents.1.host").touch()
    assert curves_logger(run, None)._kwargs["purge_step"] == 0
