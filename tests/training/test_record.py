"""metrics.json: counts that agree with the confusion matrix, of the run's own test data."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.cli import main
from kd_lightning.data import MNISTDataModule, SeededViews
from kd_lightning.data.mnist_files import DatasetName
from kd_lightning.runs.resume import RESULT_FILES
from kd_lightning.training.record import EvaluationScope, scope_of_test

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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true"])
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


def test_names_of_the_classes_are_kept(student: Path) -> None:
    assert _test(student, "--data", "tests.training.test_record.Named") == 0
    details = student / "details-other.json"
    assert _read(details)["class_names"] == list("abcdefghij")
    for file in (details, student / "metrics-other.json"):
        file.unlink()
    assert _test(student) == 0
    assert _read(student / "details.json")["class_names"] is None


@pytest.mark.slow
def test_a_run_knows_whether_it_came_to_its_end(student: Path, tmp_path: Path) -> None:
    assert _test(student) == 0
    metrics = _read(student / "metrics.json")
    assert metrics["steps_done"] == metrics["steps_planned"] == 29
    cut = tmp_path / "cut"
    shutil.copytree(student, cut)
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(cut / "checkpoints" / name, weights_only=True)
        checkpoint["global_step"] = 7 if name == "best.ckpt" else 9
        torch.save(checkpoint, cut / "checkpoints" / name)
    assert _test(cut) == 0
    metrics = _read(cut / "metrics.json")
    assert (metrics["steps"], metrics["steps_done"], metrics["steps_planned"]) == (7, 9, 29)
    (cut / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    assert _test(cut) == 0  # best.ckpt is whole
    assert _read(cut / "metrics.json")["steps_done"] is None


@pytest.mark.slow
def test_validation_accuracy_is_a_share_of_the_images(student: Path, tmp_path: Path) -> None:
    flags = ["--trainer.precision", "bf16-true", "--data.eval_batch_size", "37"]
    _fit("distill", tmp_path / "bf16", "--model.teachers", str(student), "--model.student.hidden", "[16]", *flags)
    (accuracy,) = EventAccumulator(str(tmp_path / "bf16")).Reload().Scalars("val/accuracy")
    assert 400 * accuracy.value == pytest.approx(round(400 * accuracy.value), abs=1e-3)


OTHER_TESTS = {
    "a part": (["--trainer.limit_test_batches", "1", "--data.eval_batch_size", "9"], "a part of the data, limit_test"),
    "another class": (
        ["--data", "tests.training.test_record.Half"],
        "other data, class 'Half' in place of",
    ),
}


class Half(MNISTDataModule):
    """Another data set for a run to be tested on."""

    def __init__(self, dataset: DatasetName = "mnist5k", eval_batch_size: int = 500, batch_size: int = 100) -> None:
        super().__init__(dataset, batch_size=batch_size, eval_batch_size=eval_batch_size)


class Named(MNISTDataModule):
    """Digits whose classes have names."""

    class_names = tuple("abcdefghij")

    def __init__(self, dataset: DatasetName = "mnist5k", eval_batch_size: int = 500, batch_size: int = 100) -> None:
        super().__init__(dataset, batch_size=batch_size, eval_batch_size=eval_batch_size)


@pytest.fixture(scope="module")
def tested(student: Path) -> Path:
    run = student.parent / "tested"
    shutil.copytree(student, run, ignore=shutil.ignore_patterns("*.json"))
    assert _test(run) == 0
    return run


@pytest.mark.parametrize("kind", OTHER_TESTS)
def test_only_a_test_on_all_of_its_own_data_is_the_runs_row(
    kind: str, tested: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, details = _read(tested / "metrics.json"), _read(tested / "details.json")
    assert own["data"] == {"class": "MNISTDataModule", "dataset": "mnist5k"}
    assert own["limits"] == {}
    flags, reason = OTHER_TESTS[kind]
    with caplog.at_level(logging.INFO):
        assert _test(tested, *flags) == 0
    assert (_read(tested / "metrics.json"), _read(tested / "details.json")) == (own, details)
    other = _read(tested / "metrics-other.json")
    counted = sum(map(sum, _read(tested / "details-other.json")["tables"]["confusion"]))
    assert other["test"]["examples"] == counted
    assert (other["data"], other["limits"]) != (own["data"], own["limits"])
    assert f"metrics: {tested / 'metrics-other.json'}, and not metrics.json: tested on {reason}" in caplog.text


def test_other_arguments_of_a_data_module_mean_other_data() -> None:
    def scope(data: Any, dataset: str, trainer: Any = None, **arguments: Any) -> EvaluationScope:
        paths = (
            {"class_path": "kd_lightning.data.mnist.MNISTDataModule"},
            {"class_path": "kd_lightning.MNISTDataModule"},
        )
        run, call = ({**path, "init_args": {"dataset": "mnist5k", "data_dir": "a"}} for path in paths)
        call["init_args"] |= {"dataset": dataset, **arguments}  # type: ignore[operator]
        checkpoint = Path("run/checkpoints/best.ckpt")
        return scope_of_test({"data": call, "trainer": trainer or {}}, {"data": run}, data, checkpoint, Path("run"))

    ours, theirs = MNISTDataModule("mnist5k"), LightningDataModule()
    assert scope(ours, "mnist5k", data_dir="b", val_size=3).foreign is None
    assert scope(ours, "MNIST").foreign == "tested on other data, dataset 'MNIST' in place of the run's 'mnist5k'"
    assert scope(theirs, "mnist5k", batch_size=3, num_workers=2).foreign is None
    assert scope(theirs, "mnist5k", data_dir="b").foreign is not None
    assert scope(ours, "mnist5k", {"limit_test_batches": 1.0, "fast_dev_run": False}).foreign is None
    for limit in ({"limit_test_batches": 1}, {"limit_test_batches": 0.5}, {"fast_dev_run": True}, {"fast_dev_run": 3}):
        limited = scope(ours, "mnist5k", limit)
        assert (limited.metrics_file, limited.limits) == ("metrics-other.json", limit)


def test_seeded_views_are_tested_on_what_they_wrap() -> None:
    def scope(data: LightningDataModule, **arguments: Any) -> EvaluationScope:
        def config(**changed: Any) -> dict[str, Any]:
            inner = {"class_path": "mine.Own", "init_args": {"folder": "a", "side": 8} | changed}
            views = {"class_path": "kd_lightning.SeededViews", "init_args": {"data": inner, "views": len(changed) + 1}}
            return {"data": views, "trainer": {}}

        checkpoint = Path("run/checkpoints/best.ckpt")
        return scope_of_test(config(**arguments), config(), SeededViews(data), checkpoint, Path("run"))

    class Names(LightningDataModule):
        test_data_arguments = ("folder",)

    assert scope(LightningDataModule(), num_workers=2, batch_size=7).foreign is None
    assert scope(LightningDataModule(), side=9).foreign == "tested on other data, side 9 in place of the run's 8"
    assert scope(Names(), side=9).foreign is None
    assert scope(Names()).data == {"class": "Own", "folder": "a"}


def test_a_checkpoint_from_elsewhere_is_not_the_runs_row(tested: Path, tmp_path: Path) -> None:
    own = _read(tested / "metrics.json")
    copy = tmp_path / "copy.ckpt"
    shutil.copy(tested / "checkpoints" / "best.ckpt", copy)
    config = ["--config", str(tested / "config.yaml"), "--run_dir"]
    assert _test(copy, *config, str(tested)) == 0
    assert _read(tested / "metrics.json") == own
    # How examples are served is not which.
    flags = ["--data.eval_batch_size", "77", "--data.val_size", "10", "--data.batch_size", "9", "--data.data_dir", "x"]
    assert _test(copy, *config, str(tmp_path / "new"), *flags, "--trainer.limit_test_batches", "1.0") == 0
    measured = _read(tmp_path / "new" / "metrics.json")["test"]
    assert (measured["errors"], measured["examples"]) == (own["test"]["errors"], 1000)


def test_a_test_of_nothing_is_one_line(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _test(tested, "--trainer.limit_test_batches", "0") == 1
    assert "error: the test saw no example" in capsys.readouterr().err


def test_results_of_older_weights_are_deleted(student: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(student, run)
    for name in RESULT_FILES:
        (run / name).write_text("{}", encoding="utf-8")
    _fit("teacher", run, "--model.net.hidden", "[4]", "--overwrite", "true", "--trainer.max_steps", "1")
    assert not any((run / name).exists() for name in RESULT_FILES)
