"""A student learns from logits made elsewhere; what does not belong to its examples is refused before any step."""

import json
import re
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from kd_lightning import MLP, DistillModule, Mixtures
from kd_lightning.cli.command_line import main
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.teachers.loading import load_teachers
from scripts.faults import QUICKSTART, checkpoint, curves
from tests.data.test_rows_in_memory import CLASSES, Partly
from tests.modules.test_unlabelled import NoLabels

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"]


def _fit(config: str, run: Path, *flags: str) -> int:
    given = ["--config", str(QUICKSTART / f"{config}.yaml"), "--run_dir", str(run), *QUIET]
    return main(["fit", *given, "--trainer.max_epochs", "1", *flags])


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    data = MNISTDataModule(dataset="mnist5k", val_size=400)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    assert _fit("teacher", run, "--model.net.hidden", "[32]") == 0
    return run


@pytest.fixture(scope="module")
def logits(teacher: Path, data: MNISTDataModule) -> np.ndarray[Any, Any]:
    """The teacher's logits on all rows of the training file, (rows, classes)."""
    rows = torch.arange(data.row_count)
    with torch.no_grad():
        answers = load_teachers(str(teacher))[0].net.eval()(data.inputs(rows, torch.zeros_like(rows)))
    return np.asarray(answers.numpy())


def _taught(file: Path, *flags: str) -> list[str]:
    return [
        "--model.teachers",
        str(file),
        "--model.student.hidden",
        "[16]",
        "--trainer.limit_train_batches",
        "5",
        *flags,
    ]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def _losses(run: Path) -> torch.Tensor:
    return torch.tensor([value for tag in ("train/loss", "val/soft_loss") for _, value in curves(run)[tag]])


@pytest.mark.slow
def test_a_file_teaches_as_its_net_does(
    teacher: Path, logits: np.ndarray[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "logits.npy"
    np.save(file, logits)
    both = f"[{file}, {teacher}]"
    store = ["--model.soft_targets", "stored", "--model.store.dtype", "float32"]
    assert _fit("distill", tmp_path / "net", *_taught(teacher, *store)) == 0
    assert _fit("distill", tmp_path / "file", *_taught(file)) == 0
    assert "soft targets: stored (logits made elsewhere can't be live)" in caplog.text
    assert re.search(rf"teacher {file}: \d+ errors on 2,560 training images", caplog.text)
    assert re.search(rf"teacher {file}: \d+ errors on 400 validation images", caplog.text)
    assert _fit("distill", tmp_path / "both", *_taught(Path(both), *store)) == 0
    for run in ("file", "both"):
        torch.testing.assert_close(_losses(tmp_path / run), _losses(tmp_path / "net"))
    records = json.loads((tmp_path / "both" / "teachers.json").read_text())
    assert [record["source"] for record in records] == [str(file), str(teacher / "checkpoints" / "best.ckpt")]
    assert records[0]["errors"] == records[1]["errors"]
    assert records[0]["split"] == records[1]["split"] == "validation"
    tags = curves(tmp_path / "both")
    assert tags["teachers/0_accuracy"][0] == tags["teachers/1_accuracy"][0]


@pytest.mark.slow
def test_without_validation_rows_there_are_no_teacher_figures(
    logits: np.ndarray[Any, Any], data: MNISTDataModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, run = tmp_path / "logits.npy", tmp_path / "run"
    np.save(file, logits[data.train_rows.numpy()])
    assert _fit("distill", run, *_taught(file)) == 0
    assert f"teacher {file} holds no logits of the validation rows: val/loss is the hard loss" in caplog.text
    assert "train/soft_loss" in curves(run)
    assert not {"val/soft_loss", "val/soft_cross_entropy"} & curves(run).keys()
    assert "teachers/0_accuracy" not in curves(run)  # which is of the validation split
    caplog.clear()
    assert main(["test", "--ckpt_path", str(run), *QUIET]) == 0
    assert "agreement with the teachers is not measured: a file of logits answers no test images" in caplog.text
    assert "teacher_agreement" not in json.loads((run / "metrics.json").read_text())["test"]
    assert main(["validate", "--ckpt_path", str(run), *QUIET]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.soft_targets", "live"], "holds logits and can't answer live; set soft_targets to auto or stored"),
        (
            ["--model.feature_losses", "[{class_path: kd_lightning.Hints, init_args: {student: '1', teacher: '1'}}]"],
            "holds logits only",
        ),
        (["--data.train_fraction", "0.5"], "all of the training file, got (3600, 10)"),
        (["--model.student.classes", "7", "--trainer.num_sanity_val_steps", "0"], "7 of the student and 10 of the"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_do_is_one_line(
    flags: list[str],
    message: str,
    logits: np.ndarray[Any, Any],
    data: MNISTDataModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "logits.npy", logits[data.train_rows.numpy()])
    assert _fit("distill", tmp_path / "run", *_taught(tmp_path / "logits.npy"), *flags) == 1
    assert message in _error(capsys)


def test_rows_in_another_order_are_refused(
    logits: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logits.npy"
    np.save(file, np.random.default_rng(0).permutation(logits))
    assert _fit("distill", tmp_path / "run", *_taught(file)) == 1
    line = _error(capsys)
    assert f"teacher {file} is no better than chance: " in line
    assert "; check that its rows are the training rows in their order; --model.teachers_must_beat_chance" in line


@pytest.mark.slow
def test_a_resumed_run_wants_the_same_logits(
    logits: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "logits.npy", tmp_path / "run"
    np.save(file, logits)
    unvalidated = ["--trainer.limit_val_batches", "0", "--trainer.max_steps"]
    assert _fit("distill", run, *_taught(file), *unvalidated, "2") == 0
    moved = tmp_path / "moved.npy"
    np.save(moved, logits + 0.1)
    assert _fit("distill", run, *_taught(moved), *unvalidated, "4", "--ckpt_path", "last") == 1
    assert "this run began with other teachers" in _error(capsys)
    file.rename(moved)
    assert _fit("distill", run, *_taught(moved), *unvalidated, "4", "--ckpt_path", "last") == 0
    assert checkpoint(run)["global_step"] == 4


def test_a_dry_run_reads_the_file(teacher: Path, logits: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", logits)
    both = Path(f"[{teacher}, {tmp_path / 'logits.npy'}]")
    assert _fit("distill", tmp_path / "run", *_taught(both), "--dry_run", "true") == 0
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # no validation split
@pytest.mark.parametrize(
    ("data", "labelled"),
    [
        (NoLabels(batch_size=3, seed=0), False),
        (Partly(batch_size=3, seed=0, label_fraction=0.05), True),  # 10 of 300
        (Partly(batch_size=3, seed=0, augment=Mixtures(views=40)), True),  # those of the plain view
    ],
)
def test_batches_without_labels_count_no_errors(
    data: Partly, labelled: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.setup("fit")
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).normal(size=(data.view_count, 300, CLASSES)).squeeze())
    module = DistillModule(
        student=MLP(hidden=[4], inputs=1, classes=CLASSES, mean=0.0, std=1.0),
        teachers=tmp_path / "logits.npy",
        teachers_must_beat_chance=False,
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with caplog.at_level("INFO"):
        lightning.Trainer(max_steps=2, accelerator="cpu", **quiet).fit(module, data)  # type: ignore[arg-type]
    (record,) = module.teacher_records
    uncounted = "errors are not counted: none of the training examples that were looked at has a label"
    assert (uncounted not in caplog.text) == ("errors" in record) == labelled
    assert 0 <= record.get("examples", 0) < 60  # of 20 batches
