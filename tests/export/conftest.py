"""A run whose student is exported."""

from pathlib import Path

import pytest

from kd_lightning.cli.command_line import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    flags = ["--model.student.hidden", "[30]", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    config = str(CONFIGS / "quickstart" / "student.yaml")
    assert main(["fit", "--config", config, "--run_dir", str(folder), *flags]) == 0
    assert main(["test", "--ckpt_path", str(folder), "--trainer.enable_progress_bar", "false"]) == 0
    return folder
