"""Preparations compute the store and make no run."""

from pathlib import Path

import pytest

from kd_lightning.cli.command_line import main
from scripts.faults import QUICKSTART
from tests.teachers.stores import folders

QUIET = ["--trainer.enable_progress_bar", "false"]


def _fit(config: str, run: Path, *flags: str) -> int:
    return main(["fit", "--config", str(QUICKSTART / f"{config}.yaml"), "--run_dir", str(run), *QUIET, *flags])


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        small = ["--model.net.hidden", "[16]", "--trainer.max_epochs", "1", "--seed_everything", str(seed)]
        assert _fit("teacher", folder / f"{seed}", *small) == 0
    return folder


def _taught(teachers: str, store: Path) -> list[str]:
    return ["--model.teachers", teachers, "--model.store.folder", str(store), "--trainer.max_epochs", "1"]


@pytest.mark.slow
def test_each_teacher_is_prepared_by_a_job_of_its_own(
    teachers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the student finds all, though a single epoch would not pay for them."""
    store, run = tmp_path / "store", tmp_path / "run"
    for number in (0, 1):
        assert _fit("distill", run, *_taught(str(teachers / f"{number}"), store), "--prepare", "true") == 0
        assert len(folders(store)) == number + 1
    assert "soft targets: stored (as asked)" in caplog.text
    assert "prepared: the data and the soft targets that are stored are there; no step was made" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    caplog.clear()
    assert _fit("distill", run, *_taught(f"{teachers}/*", store), "--trainer.max_steps", "1") == 0
    assert "soft targets: stored (made by an earlier run)" in caplog.text
    assert "computing" not in caplog.text


@pytest.mark.slow
def test_a_prepared_run_is_left_as_it_is(teachers: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    taught = _taught(str(teachers / "0"), store)
    assert _fit("distill", run, *taught, "--trainer.max_steps", "1", "--model.soft_targets", "live") == 0
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert _fit("distill", run, *taught, "--prepare", "true") == 0
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert len(folders(store)) == 1


def test_a_plain_students_fit_says_that_it_has_labels_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert _fit("student", tmp_path / "run", "--dry_run", "true") == 0
    assert "DistillModule, labels only: MLP with " in caplog.text


def test_the_loss_of_a_dry_run_is_that_of_its_examples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for batches in ("1", "4"):
            flags = ["--dry_run", "true", "--trainer.accumulate_grad_batches", batches]
            assert _fit("student", tmp_path / "run", *flags) == 0
    once, accumulated = (line for line in caplog.messages if line.startswith("dry run: "))
    assert once == accumulated


HINTS = "[{class_path: kd_lightning.Hints, init_args: {student: '1', teacher: '1'}}]"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.soft_targets", "live"], "--prepare stores the teachers' logits, and here the teachers run live"),
        (["--model.feature_losses", HINTS], "--prepare stores the teachers' logits, and here the teachers run live"),
        (["--model.store.limit_gb", "0.00001"], "can't be stored: 0.1 MB are more than store.limit_gb, 1e-05"),
        (["--model.teachers", "null"], "no teachers are given"),
    ],
)
def test_where_nothing_can_be_stored_it_is_an_error(
    flags: list[str], message: str, teachers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = _taught(str(teachers / "0"), tmp_path / "store")
    assert _fit("distill", tmp_path / "run", *taught, "--prepare", "true", *flags) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", ["teacher", "student"])
def test_without_teachers_the_data_is_prepared(config: str, tmp_path: Path) -> None:
    assert _fit(config, tmp_path / "run", "--prepare", "true") == 0
    assert not list(tmp_path.iterdir())
