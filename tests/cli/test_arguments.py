"""Command lines that are printed."""

import pytest

from kd_lightning.cli.arguments import resume_command

FIT = ["python", "-m", "kd_lightning", "fit", "--config", "my run.yaml"]


@pytest.mark.parametrize("more", [[], ["--overwrite", "true"], ["--overwrite=true"], ["--ckpt_path", "last"]])
def test_a_stopped_fit_is_resumed_by_its_own_command(more: list[str]) -> None:
    expected = "python -m kd_lightning fit --config 'my run.yaml' --seed_everything 1 --ckpt_path last"
    assert resume_command([*FIT, *more, "--seed_everything", "1"]) == expected
