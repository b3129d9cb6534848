"""docs/logits-files.md, as a stranger would follow it."""

from pathlib import Path

import pytest

from kd_lightning.cli.command_line import main
from scripts.faults import curves
from tests.guides import DOCS, ROOT, blocks

GUIDE = DOCS / "logits-files.md"


@pytest.mark.slow
def test_logits_of_another_net_teach() -> None:
    (python,), (command,) = blocks(GUIDE, "python"), blocks(GUIDE, "bash")
    exec(python, {})  # noqa: S102  # the guide's own lines, in this test's folder
    arguments = command.replace("configs/", f"{ROOT / 'configs'}/").split()[3:]
    short = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    assert main([*arguments, *short]) == 0
    assert {"train/soft_loss", "val/soft_loss"} <= curves(Path("runs/from_file")).keys()
