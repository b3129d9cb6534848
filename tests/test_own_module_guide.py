"""docs/own-module.md, as a reader would follow it: its module trains, its loop takes a step."""

import runpy
from pathlib import Path

import pytest

from kd_lightning import main
from tests.guides import DOCS, blocks

GUIDE = DOCS / "own-module.md"
TEACHER = Path(__file__).parents[1] / "configs" / "quickstart" / "teacher.yaml"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_the_guides_module_and_loop_learn_from_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick = ["--model.net.hidden", "[16]", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", str(TEACHER), *quick]) == 0
    caplog.clear()
    examples = blocks(GUIDE, "python")
    assert len(examples) == 2
    for number, block in enumerate(examples):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block, encoding="utf-8")
        runpy.run_path(str(script), run_name="__main__")
    assert "teacher runs/quickstart/teacher-0/checkpoints" in caplog.text
    assert "errors on 2,560 training images" in caplog.text
