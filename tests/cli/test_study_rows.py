"""Each row of the studies of methods and schemes makes its first step."""

from collections import Counter
from pathlib import Path

import pytest

from kd_lightning import main
from kd_lightning.reports.study_file import StudyRow, read_study

CONFIGS = Path(__file__).parents[2] / "configs" / "mnist"
DATA = ["--trainer.enable_progress_bar", "false", "--data.dataset", "mnist5k", "--data.val_size", "400"]
ROWS = {
    f"{study}-{row.name}": row for study in ("methods", "schemes") for row in read_study(CONFIGS / f"{study}.yaml").rows
}


def test_each_row_of_the_methods_was_tuned_with_the_same_budget() -> None:
    tuned = read_study(CONFIGS / "methods-tuning.yaml").rows
    runs = Counter(row.name.rpartition("-")[0] for row in tuned for _ in range(row.seeds))
    assert runs == {"": 1} | {row.name: 3 for row in read_study(CONFIGS / "methods.yaml").rows if row.name != "teacher"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    small = ["--model.net.hidden", "[24, 24]", "--trainer.max_epochs", "1"]
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--run_dir", str(run), *DATA, *small]) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_each_row_makes_its_first_step(row: StudyRow, teacher: Path, tmp_path: Path) -> None:
    taught = ["--model.teachers", str(teacher / "checkpoints" / "last.ckpt")] if row.teachers else []
    small = ["--model.student.hidden", "[16, 16]", "--data.batch_size", "64"]
    run = ["--run_dir", str(tmp_path / "run"), "--dry_run", "true"]
    assert main(["fit", *row.flags(), *small, *taught, *run, *DATA]) == 0
