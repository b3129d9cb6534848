"""Which teachers a resumed run goes on with."""

import shutil
from pathlib import Path

import pytest
import torch

from kd_lightning.cli.command_line import main
from scripts.faults import QUICKSTART, checkpoint

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0", "--trainer.logger", "false"]


def _fit(config: str, run: Path, steps: int, *flags: str) -> int:
    given = ["--config", str(QUICKSTART / f"{config}.yaml"), "--run_dir", str(run), "--trainer.max_steps", str(steps)]
    return main(["fit", *given, *QUIET, *flags])


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (1, 2):
        assert _fit("teacher", folder / f"{seed}", 1, "--model.net.hidden", "[8]", "--seed_everything", str(seed)) == 0
    return folder


@pytest.mark.slow
def test_renamed_and_moved_teachers_teach_on_in_their_order(teachers: Path, tmp_path: Path) -> None:
    """A glob finds them in the order of their new names; their weights belong to the old order."""
    shutil.copytree(teachers, tmp_path / "old")
    flags = ["--model.student.hidden", "[8]", "--model.teachers_must_beat_chance", "false", "--model.scheduler", "null"]
    flags += ["--model.teacher_weights", "[0.9, 0.1]", "--model.soft_targets", "live", "--model.teachers"]
    assert _fit("distill", tmp_path / "whole", 4, *flags, str(tmp_path / "old" / "*")) == 0
    assert _fit("distill", tmp_path / "moved", 2, *flags, str(tmp_path / "old" / "*")) == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "1").rename(tmp_path / "new" / "z")
    (tmp_path / "old" / "2").rename(tmp_path / "new" / "a")
    again = [*flags, str(tmp_path / "new" / "*"), "--ckpt_path", "last"]
    assert _fit("distill", tmp_path / "moved", 4, *again) == 0
    whole, moved = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "moved")
    assert all(torch.equal(tensor, moved["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    assert moved["kd_lightning"]["teachers"] == whole["kd_lightning"]["teachers"]
