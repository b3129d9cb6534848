"""metrics.json: counts that agree with the confusion matrix, of the run's own test data."""

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
QUIET = ["--trainer.enable_progress_bar", "false"]


def _fit(config: str, run: Path, *flags: str) -> None:
    command = ["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--run_dir", str(run), *QUIET]
    assert main([*command, "--trainer.max_epochs", "1", *flags]) == 0


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    _fit("teacher", runs / "teacher", "--model.net.hidden", "[16]")
    _fit("distill", runs / "student", "--model.student.hidden", "[16]", "--model.teachers", str(runs / "teacher"))
    return runs / "student"


def _test(run: Path, *flags: str) -> int:
    return main(["test", "--ckpt_path", str(run), *QUIET, *flags])


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true", "64-true"])
def test_counts_agree_with_the_confusion_matrix(precision: str, student: Path) -> None:
    # Batches of 37, whose sums bfloat16 can't hold.
    assert _test(student, "--trainer.precision", precision, "--data.eval_batch_size", "37") == 0
    measured, tables = _read(student / "metrics.json")["test"], _read(student / "details.json")["tables"]
    right = sum(line[label] for label, line in enumerate(tables["confusion"]))
    as_taught = sum(line[label] for label, line in enumerate(tables["teacher_confusion"]))
    assert measured["examples"] == sum(map(sum, tables["confusion"])) == 1000
    assert measured["errors"] == 1000 - right
    assert measured["accuracy"] == pytest.approx(right / 1000)
    assert measured["teacher_agreement"] == pytest.approx(as_taught / 1000)
    assert sum(each["count"] for each in tables["reliability"]) == 1000


def test_validation_accuracy_is_a_share_of_the_images(student: Path, tmp_path: Path) -> None:
    flags = ["--trainer.precision", "bf16-true", "--data.eval_batch_size", "37"]
    _fit("distill", tmp_path / "bf16", "--model.teachers", str(student), "--model.student.hidden", "[16]", *flags)
    (accuracy,) = EventAccumulator(str(tmp_path / "bf16")).Reload().Scalars("val/accuracy")
    assert 400 * accuracy.value == pytest.approx(round(400 * accuracy.value), abs=1e-3)
