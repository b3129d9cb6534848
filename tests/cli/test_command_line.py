"""The whole way through the command line, and its errors: one line, non-zero exit, nothing lost."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

import kd_lightning
from kd_lightning.cli.arguments import typed_program
from kd_lightning.cli.command_line import main
from kd_lightning.cli.distill_cli import DistillCLI
from kd_lightning.modules.distill import DistillModule
from kd_lightning.nets.digits import MLP
from kd_lightning.runs.hardware import hardware_of
from kd_lightning.teachers.loading import teacher_checkpoints
from kd_lightning.training.signals import StopSignals

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]


def _fit(config: str, run: Path, *flags: str) -> int:
    return main(
        [
            "fit",
            "--config",
            str(CONFIGS / "quickstart" / f"{config}.yaml"),
            "--run_dir",
            str(run),
            *SMALL,
            *flags,
        ]
    )


def _in_a_process(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command line in a process of its own, as forked ranks need it."""
    return subprocess.run(
        [sys.executable, "-m", "kd_lightning", *command],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONFIGS.parent)},
    )


def _shown(lines: str) -> str:
    return [line for line in lines.splitlines() if line.startswith("error:")][-1]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _weights(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    assert _fit("teacher", run, "--model.net.hidden", "[64]") == 0
    return run


@pytest.fixture(scope="module")
def student(teacher: Path) -> Path:
    run = teacher.parent / "student"
    assert _fit("distill", run, "--model.teachers", str(teacher)) == 0
    return run


def test_fit_test_and_report(teacher: Path, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (teacher, student):
        assert main(["test", "--ckpt_path", str(run), "--trainer.enable_progress_bar", "false"]) == 0
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["test"]["examples"] == 1000
    assert metrics["test"]["errors"] == round(1000 * (1 - metrics["test"]["accuracy"]))
    assert 0 <= metrics["test"]["teacher_agreement"] <= 1
    assert metrics["hardware"] == hardware_of(torch.device("cpu"))
    record = json.loads((student / "teachers.json").read_text())[0]
    assert record["examples"] == 400
    assert record["trained_on_validation_images"] == 0
    assert main(["report", str(teacher), str(student), "--output", str(student.parent / "report")]) == 0
    lines = (student.parent / "report" / "report.csv").read_text().splitlines()
    assert len(lines) == 3
    assert f",{metrics['test']['errors']}," in lines[2]
    assert "student" in capsys.readouterr().out


def test_student_checkpoint_stands_alone(student: Path, tmp_path: Path) -> None:
    checkpoint = _weights(student)
    assert all(name.startswith("net.") for name in checkpoint["state_dict"])
    assert "teachers" not in checkpoint["hyper_parameters"]
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((student / "checkpoints" / "last.ckpt").read_bytes())
    module = DistillModule.load_from_checkpoint(copy, weights_only=True)
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert module.temperature == 10.0


def test_a_student_can_teach(student: Path, tmp_path: Path) -> None:
    assert _fit("distill", tmp_path / "second", "--model.teachers", str(student)) == 0


class Stop(Callback):
    """Ends a run at a step, as a crash would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.at:
            raise RuntimeError("stopped on purpose")


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("at", "length"),
    [
        (18, 25),
        *(pytest.param(at, 27, marks=pytest.mark.slow) for at in (3, 10, 13, 18, 20, 22)),
        *(pytest.param(at, 25, marks=pytest.mark.slow) for at in (9, 20)),
    ],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not(at: int, length: int, teacher: Path, tmp_path: Path) -> None:
    """Weights and logged curves, with dropout, views, stored soft targets, and a stop at any place of an epoch."""
    flags = ["--model.student.hidden", "[16]", "--model.student.dropout_hidden", "0.5", "--save_every", "0"]
    flags += ["--data.augment", "kd_lightning.Jitter", "--data.augment.pixels", "1", "--data.batch_size", "400"]
    flags += ["--model.teachers", str(teacher), "--model.soft_targets", "stored", "--trainer.max_epochs", "3"]
    flags += ["--trainer.max_steps", str(length)] * (length < 27)  # three epochs of nine steps
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert _fit("distill", straight, *flags) == 0
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", str(at)]
    assert _fit("distill", broken, *flags, *stop) == 1
    assert _fit("distill", broken, *flags, "--ckpt_path", "last") == 0
    first, second = _weights(straight), _weights(broken)
    assert first["global_step"] == second["global_step"] == length
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    assert first["kd_lightning"]["validation"] == second["kd_lightning"]["validation"]
    expected, resumed = _curves(straight), _curves(broken)
    for tag in ("train/loss", "train/soft_loss", "train/accuracy", "val/loss", "val/accuracy", "lr"):
        assert resumed[tag] == expected[tag], tag


def test_predict_images_and_test_set(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.new("L", (60, 80), 255)
    picture.paste(0, (25, 10, 35, 70))
    picture.save(tmp_path / "one.png")
    command = ["predict", "--ckpt_path", str(student), "--trainer.enable_progress_bar", "false"]
    assert main([*command, "--data.images", f"[{tmp_path}]"]) == 0
    assert "one.png: inverted, 60 x 80 to 28 x 28" in capsys.readouterr().out
    rows = _rows(student / "predictions.csv")
    assert rows[0]["file"].endswith("one.png")
    assert rows[0]["label"] == ""
    assert main([*command, "--data.images", str(tmp_path / "one.png")]) == 0
    assert [row["file"] for row in _rows(student / "predictions.csv")] == [str(tmp_path / "one.png")]
    assert main(command) == 0
    assert len(_rows(student / "predictions.csv")) == 1000


DIGITS = [path for folder in ("mnist", "quickstart") for path in (CONFIGS / folder).glob("*.yaml")]
FIT_CONFIGS = sorted(path for path in DIGITS if "\nrows:" not in path.read_text())  # no studies
RUN_BY_DEFAULT = {"teacher", "student", "distill", "elastic-mixtures"}  # of configs/mnist; two seconds each
assert {path.stem for path in FIT_CONFIGS} >= RUN_BY_DEFAULT


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            path,
            id=f"{path.parent.name}-{path.stem}",
            marks=[] if path.parent.name == "mnist" and path.stem in RUN_BY_DEFAULT else pytest.mark.slow,
        )
        for path in FIT_CONFIGS
    ],
)
def test_every_config_runs_one_step_by_its_own_command(config: Path, teacher: Path, tmp_path: Path) -> None:
    command = re.search(r"#   python -m kd_lightning (.*)", config.read_text())
    assert command, "a configuration's second line is how to run it"
    arguments = command[1].replace("configs/", f"{CONFIGS}/").split()
    assert str(config) in arguments
    flags = ["--data.dataset", "mnist5k", "--data.val_size", "100", "--trainer.fast_dev_run", "true"]
    if any("distill.yaml" in argument for argument in arguments):
        flags += ["--model.teachers", str(teacher)]
    assert main([*arguments, "--run_dir", str(tmp_path / "run"), *SMALL, *flags]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.temperature", "0"], "temperature must be from 0.001 to 1000, got 0.0: "),
        (["--model.temperature", "-2"], "temperature must be from 0.001 to 1000, got -2.0: "),
        (["--model.temperature", ".nan"], "temperature must be from 0.001 to 1000, got nan: "),
        (["--model.temperature", "1e200"], "temperature must be from 0.001 to 1000, got 1e+200: "),
        (["--trainer.precision", "16-true"], "trainer.precision 16-true can't train: in float16 Adam's epsilon"),
        (["--model.soft_weight", "1.5"], "soft_weight must be in [0, 1], got 1.5"),
        (
            ["--model.teachers", "nowhere/*.ckpt"],
            "no teacher checkpoint matches nowhere/*.ckpt; expected a run's folder or a checkpoint",
        ),
        (["--model.teachers", "null"], "no teachers are given"),
        (["--model.net.hidden", "[64"], "model.net.hidden: kd_lightning.DistillModule has no option net"),
        (["--model.student.hidden", "[64"], "model.student.hidden: expected a list, got [64"),
        (["--model.tempreature", "3"], "has no option tempreature; did you mean temperature?"),
        (["--model.student.widht", "3"], "model.student: kd_lightning.MLP has no option widht; it has hidden,"),
        (["--model.temperature", "hot"], "model.temperature: expected a number, got hot"),
        (["--model.student", "no_project.Nope"], "model.student: No module named 'no_project'"),
        (
            ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lrr", "3"],
            "model.optimizer: torch.optim.Adam has no option lrr; did you mean lr?",
        ),
        (["--model.student", "tests.cli.test_command_line.Outer.Net", "--model.student.widht", "3"], "model.student: "),
        (["--trainer.max_epochs", "x"], "trainer.max_epochs: expected a whole number, got x"),
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch"),
        (["--config", "nope.yaml"], "--config: no file "),
        (["--model.averaging", "x"], "model.averaging: expected one of 'arithmetic', 'geometric', got x"),
        (["--model.soft_loss", "ReverseKLL"], "model.soft_loss: no class ReverseKLL; expected its name or import"),
        (["--model.student", "torch.nn.Identity"], "the net must have parameters to train, got Identity"),
        (["--model.student.inputs", "700"], "MLP failed on inputs of shape ("),
        (["--data.batch_size", "0"], "batch_size must be >= 1, got 0"),
        (["--data.keep_classes", "[3]", "--data.drop_classes", "[3]"], "the transfer set is empty"),
        (["--data.dataset", "KMNIST"], "KMNIST is not under"),
        (["--seed_everything", "-1"], "error: -1 is not in bounds"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str],
    message: str,
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torchvision.datasets.KMNIST.mirrors", ["http://127.0.0.1:9/"])
    flags = ["--model.teachers", str(teacher), "--data.data_dir", str(tmp_path / "data"), *flags]
    assert _fit("distill", tmp_path / "run", *flags) == 1
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(last) == 1
    assert message in last[0]


@pytest.mark.parametrize("flag", [["--dry_run", "true"], ["--data.val_size", "5"], ["--trainer.max_epochs", "3"]])
def test_an_option_of_fit_is_said_to_be_one(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    study = Path(__file__).parents[2] / "configs/mnist/table.yaml"
    assert main(["study", str(study), *flag]) == 1
    assert _error(capsys).rstrip().endswith(f"{' '.join(flag)}; that is an option of fit")


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    return _shown(capsys.readouterr().err)


def test_bad_teachers(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((teacher / "checkpoints" / "last.ckpt").read_bytes()[:1000])
    assert _fit("distill", tmp_path / "a", "--model.teachers", str(broken)) == 1
    assert "damaged" in _error(capsys)
    assert _fit("distill", tmp_path / "b", "--model.teachers", str(teacher / "checkpoints" / "*.ckpt")) == 1
    assert "two checkpoints of one run" in _error(capsys)
    assert _fit("distill", tmp_path / "c", "--model.teachers", str(teacher), "--model.student.classes", "5") == 1
    assert "5" in _error(capsys)
    untrained = tmp_path / "untrained"
    assert (
        _fit(
            "teacher",
            untrained,
            "--model.net.hidden",
            "[4]",
            "--trainer.max_steps",
            "1",
            "--trainer.limit_val_batches",
            "0",
        )
        == 0
    )
    assert _fit("distill", tmp_path / "d", "--model.teachers", str(untrained)) == 1
    assert "no better than chance" in _error(capsys)
    allowed = ["--model.teachers", str(untrained), "--model.teachers_must_beat_chance", "false"]
    assert _fit("distill", tmp_path / "e", *allowed) == 0


@pytest.mark.parametrize("by", ["flag", "config"])
@pytest.mark.parametrize("content", ["", "root:x:0:0:root\n"])
def test_a_file_that_is_no_checkpoint_is_named(
    content: str, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser reads such files in place of an option's value."""
    file, config = tmp_path / "teacher.txt", tmp_path / "teachers.yaml"
    file.write_text(content)
    config.write_text(f"model: {{init_args: {{teachers: {file}}}}}\n")
    flags = ["--model.teachers", str(file)] if by == "flag" else ["--config", str(config)]
    assert _fit("distill", tmp_path / "run", *flags) == 1
    assert f"checkpoint {file} is damaged and can't be read" in _error(capsys)


def test_a_folder_with_brackets_in_its_name_is_that_folder(teacher: Path, tmp_path: Path) -> None:
    for name in ("run[1]", "run*", "run1"):
        shutil.copytree(teacher, tmp_path / name)
    assert [teacher_checkpoints(str(tmp_path / name)) for name in ("run[1]", "run*")] == [
        [tmp_path / name / "checkpoints" / "best.ckpt"] for name in ("run[1]", "run*")
    ]
    assert len(teacher_checkpoints(str(tmp_path / "run[0-9]"))) == 1


def test_guards_keep_what_is_on_disk(student: Path, teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (student / "checkpoints" / "last.ckpt").read_bytes()
    taught = ["--model.teachers", str(teacher)]
    assert _fit("distill", student, *taught) == 1
    assert "already holds a run" in _error(capsys)
    assert _fit("distill", student, *taught, "--ckpt_path", "last", "--model.temperature", "2.5") == 1
    message = _error(capsys)
    assert "temperature" in message
    assert "10.0" in message
    assert "2.5" in message
    assert main(["test", "--config", str(student / "config.yaml")]) == 1
    assert "test needs a trained net" in _error(capsys)
    wrong = ["--config", str(teacher / "config.yaml"), "--ckpt_path", str(student)]
    assert main(["test", *wrong]) == 1
    assert "holds a DistillModule" in _error(capsys)
    assert _fit("distill", student, "--model.teachers", "nowhere", "--overwrite", "true") == 1
    assert "no teacher checkpoint matches nowhere" in _error(capsys)
    assert (student / "checkpoints" / "last.ckpt").read_bytes() == before


class FailsAtStart(Callback):
    """Ends the run when its event file is there and its first step is not."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise ValueError("no start today")


@pytest.mark.parametrize("how", [["--overwrite", "true"], ["--ckpt_path", "last", "--trainer.max_steps", "9"]])
def test_a_start_that_fails_leaves_the_older_run_as_it_was(how: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--model.net.hidden", "[8]", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    assert _fit("teacher", run, *flags) == 0
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert _fit("teacher", run, *flags, *how, "--trainer.callbacks+", "tests.cli.test_command_line.FailsAtStart") == 1
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--model.net.hidden", "[8]", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    assert _fit("teacher", run, *flags) == 0
    (run / "notes.txt").write_text("mine")
    assert _fit("teacher", run, *flags, "--overwrite", "true", "--seed_everything", "1") == 0
    assert len(list(run.glob("events*"))) == 1
    assert (run / "notes.txt").read_text() == "mine"
    assert "seed_everything: 1" in (run / "config.yaml").read_text()


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_flag_beside_a_checkpoint_is_never_overruled(
    student: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning puts a checkpoint's hyperparameters over the flags, in silence; here the flag counts."""
    checkpoint = str(student / "checkpoints" / "last.ckpt")
    flags = ["--config", str(student / "config.yaml"), "--model.temperature", "2.5"]
    signals = StopSignals()
    with signals.installed():  # as main does; it gives them back
        command = ["validate", *flags, "--ckpt_path", checkpoint, "--trainer.enable_progress_bar", "false"]
        cli = DistillCLI(command, signals=signals)
    assert cli.model.temperature == 2.5
    assert (
        _fit("distill", tmp_path / "run", "--model.teachers", str(teacher), *flags[2:], "--ckpt_path", checkpoint) == 1
    )
    assert "temperature: the run has 10.0, asked for 2.5" in _error(capsys)


def test_a_damaged_last_checkpoint_falls_back_to_the_newest_whole_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    flags = ["--model.net.hidden", "[32]", "--model.scheduler", "null"]
    assert _fit("teacher", run, *flags, "--trainer.max_epochs", "2") == 0
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:500])
    resume = [*flags, "--trainer.max_epochs", "3", "--ckpt_path"]
    assert _fit("teacher", run, *resume, str(last)) == 1
    assert "is damaged" in _error(capsys)
    assert _fit("teacher", run, *resume, "last") == 0
    assert "looking for an older one" in caplog.text
    assert _weights(run)["kd_lightning"]["epochs"] == 3
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.write_bytes(b"broken")
    assert _fit("teacher", run, *resume, "last") == 1
    assert "no checkpoint in" in _error(capsys)


def test_other_teachers_on_resume_are_refused(
    student: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(teacher, mine)
    taught = ["--model.teachers", str(mine)]
    assert _fit("distill", run, *taught) == 0
    for name in ("best", "last"):
        shutil.copy(student / "checkpoints" / "last.ckpt", mine / "checkpoints" / f"{name}.ckpt")
    assert _fit("distill", run, *taught, "--ckpt_path", "last", "--trainer.max_epochs", "2") == 1
    assert "began with other teachers" in _error(capsys)


@pytest.mark.slow
def test_the_teachers_may_be_gone_when_the_student_is_tested(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(teacher, mine)
    assert _fit("distill", run, "--model.teachers", str(mine)) == 0
    shutil.rmtree(mine)
    assert main(["test", "--ckpt_path", str(run), "--trainer.enable_progress_bar", "false"]) == 0
    assert "agreement with the teachers is not measured" in caplog.text
    assert "teacher_agreement" not in json.loads((run / "metrics.json").read_text())["test"]
    module = DistillModule.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert module.teachers is None


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("flags", [[], ["--trainer.gradient_clip_val", "1.0"]], ids=["", "clipped"])
def test_precisions_train(precision: str, flags: list[str], teacher: Path, tmp_path: Path) -> None:
    taught = ["--model.teachers", str(teacher), "--trainer.precision", precision, "--trainer.max_steps", "3", *flags]
    assert _fit("distill", tmp_path / "run", *taught) == 0
    assert all(tensor.isfinite().all() for tensor in _weights(tmp_path / "run")["state_dict"].values())


@pytest.mark.parametrize(
    "strategy", ["fsdp", "deepspeed_stage_2", "lightning.pytorch.strategies.ModelParallelStrategy"]
)
def test_strategies_that_cut_a_net_are_refused(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit("student", tmp_path / "run", "--trainer.strategy", strategy) == 1
    assert "must keep the net whole" in _shown(capsys.readouterr().err)


def test_a_dry_run_writes_nothing(teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taught = ["--model.teachers", str(teacher), "--model.store.folder", str(tmp_path / "store")]
    assert _fit("distill", tmp_path / "run", *taught, "--trainer.max_epochs", "30", "--dry_run", "true") == 0
    assert not list(tmp_path.iterdir())
    assert "data: mnist5k, 3,600 training and 400 validation images" in caplog.text
    assert "soft targets: stored (1 view of each example instead of 30 passes)" in caplog.text
    assert "dry run: one step of 128 examples, loss " in caplog.text


def test_a_dry_run_writes_nothing_where_the_data_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.dataset", "FashionMNIST", "--data.data_dir", str(tmp_path / "data")]
    assert _fit("student", tmp_path / "run", *data, "--dry_run", "true") == 1
    assert "raw; download it with --prepare true" in _error(capsys)
    assert not list(tmp_path.iterdir())


def test_the_next_command_can_be_pasted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "my runs" / "one"
    flags = ["--model.student.hidden", "[8]", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    assert _fit("student", run, *flags) == 0
    assert main(["test", "--ckpt_path", str(run), *SMALL]) == 0
    commands = [shlex.split(line) for line in caplog.text.splitlines() if line.startswith("next: ")]
    assert [command[-1] for command in commands] == [str(run), "my runs"]  # from the current folder
    assert all(command[1:4] == ["python", "-m", "kd_lightning"] for command in commands)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            [".venv/bin/python", "-m", "kd_lightning", "fit", "--run_dir", "kd_lightning"],
            ".venv/bin/python -m kd_lightning",
        ),
        (["my env/python", "-u", "-m", "kd_lightning", "test"], "'my env/python' -u -m kd_lightning"),
        (["kd_lightning", "fit"], "kd_lightning"),
        (["python", "mine.py", "fit", "--run_dir", "kd_lightning"], "python -m kd_lightning"),
        ([], "python -m kd_lightning"),
    ],
)
def test_the_program_is_named_as_it_was_typed(typed: list[str], expected: str) -> None:
    assert typed_program(typed) == expected


def test_the_next_command_names_the_program_as_it_was_typed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = tmp_path / "one", str(CONFIGS / "quickstart" / "student.yaml")
    small = ["--model.student.hidden", "[8]", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    for program, arguments in (
        (["/bin/python", "/bin/kd_lightning"], ["fit", "--config", config, "--run_dir", str(run), *small]),
        (["/opt/python", "-m", "kd_lightning"], ["test", "--ckpt_path", str(run)]),
    ):
        monkeypatch.setattr(sys, "argv", ["kd_lightning", *arguments, *SMALL])
        monkeypatch.setattr(sys, "orig_argv", [*program, *arguments, *SMALL])
        assert main() == 0
    commands = [line for line in caplog.text.splitlines() if line.startswith("next: ")]
    assert commands == [
        f"next: kd_lightning test --ckpt_path {run}",
        "next: /opt/python -m kd_lightning report .",
    ]


def test_a_run_that_fails_before_it_begins_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert _fit("distill", run, "--model.teachers", "nowhere") == 1
    assert "no teacher checkpoint matches nowhere" in _shown(capsys.readouterr().err)
    assert not list(run.rglob("events*"))
    assert _fit("student", run) == 0


@pytest.mark.slow
def test_compiled_nets_keep_their_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--model.net.hidden", "[16]", "--model.compile", "true", "--trainer.precision", "bf16-mixed"]
    assert _fit("teacher", run, *flags, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "1") == 0
    assert all(name.startswith("net.") and "_orig_mod" not in name for name in _weights(run)["state_dict"])


@pytest.mark.slow
def test_stored_soft_targets_are_said_and_kept(teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    taught = ["--model.teachers", str(teacher), "--model.store.folder", str(tmp_path / "store")]
    assert _fit("distill", run, *taught, "--trainer.max_epochs", "2") == 0
    said = caplog.text
    caplog.clear()
    assert "soft targets: stored (1 view of each example instead of 2 passes)" in said
    assert " on 4,000 images, 0.1 MB" in said
    assert _fit("distill", run, *taught, "--ckpt_path", "last", "--trainer.max_epochs", "3") == 0
    assert "computing" not in caplog.text
    assert _weights(run)["kd_lightning"]["soft_targets_stored"] is True


@pytest.mark.slow
@pytest.mark.parametrize("config", ["student", "distill"])
def test_two_processes_train_and_count_as_one(config: str, teacher: Path, tmp_path: Path) -> None:
    """DDP on two CPU processes trains as one process does, from one store, and its error counts are exact."""
    weights = []
    for name, devices in {"one": [], "two": ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]}.items():
        run = tmp_path / name
        flags = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *devices]
        fit = ["fit", "--config", str(CONFIGS / "quickstart" / f"{config}.yaml"), "--run_dir", str(run)]
        fit += ["--trainer.max_steps", "20", "--data.augment", "kd_lightning.Jitter"]
        if config == "distill":
            fit += ["--model.teachers", str(teacher), "--model.soft_targets", "stored"]
            fit += ["--model.store.folder", str(tmp_path / f"store-{name}"), "--model.store.dtype", "float32"]
        for command in ([*fit, *flags], ["test", "--ckpt_path", str(run), *flags]):
            done = _in_a_process(*command)
            assert done.returncode == 0, done.stderr
        measured = json.loads((run / "metrics.json").read_text())["test"]
        assert measured["examples"] == 1000
        assert measured["errors"] == round(1000 * (1 - measured["accuracy"]))
        weights.append(_weights(run)["state_dict"])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_an_error_of_a_child_process_is_one_line(tmp_path: Path) -> None:
    devices = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
    command = ["fit", "--config", str(CONFIGS / "quickstart" / "distill.yaml"), "--model.teachers", "nowhere", *devices]
    done = _in_a_process(*command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert _shown(done.stderr).startswith("error: no teacher checkpoint matches nowhere; expected a run's folder")


@pytest.mark.faults
def test_sigterm_ends_with_143_and_the_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "kd_lightning", "fit", "--config", str(CONFIGS / "quickstart" / "student.yaml")]
    command += ["--run_dir", str(run), "--save_every", "0", "--ckpt_path", "last", "--trainer.max_epochs", "2000"]
    environment = os.environ | {"PYTHONPATH": str(CONFIGS.parent)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as worker:
        for _ in range(600):
            if (run / "checkpoints" / "last.ckpt").exists():
                break
            time.sleep(0.1)
        worker.terminate()
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 143, said
    before = _weights(run)["global_step"]
    short = [*command[3:-2], "--trainer.max_steps", str(before + 5), "--trainer.max_epochs", "-1"]
    assert main(short) == 0
    assert _weights(run)["global_step"] == before + 5


def test_completion_offers_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    asked = (
        f"source {script}; COMP_WORDS=(kd_lightning fit --model.temp); COMP_CWORD=2; "
        "_shtab_kd_lightning kd_lightning --model.temp fit; echo ${COMPREPLY[@]}"
    )
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["--model.temperature"]
    assert main(["completion", "cmd"]) == 1
    assert "no completion for cmd; expected one of bash" in _error(capsys)


def test_help_of_subcommands_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "test Measure a checkpoint on the test set and write metrics.json into its run." in said


class Outer:
    """Holds a net whose class path has a class in it."""

    class Net(MLP):
        pass


TWO_WAYS = "tests.cli.test_command_line.TwoWays"


class TwoWays(LightningDataModule):
    """A user's own data module: its batch_size is its own, and it has no default for `folder`."""

    def __init__(self, folder: str, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.rand(640, 1, 28, 28), torch.arange(640) % 10), self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


@pytest.mark.parametrize("by", ["flag", "config"])
def test_own_data_keeps_its_own_defaults(
    by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(
        "model: {class_path: kd_lightning.TeacherModule, init_args: {net: {class_path: kd_lightning.MLP, "
        "init_args: {hidden: [8]}}}}\n"
        + (
            "data: {class_path: tests.cli.test_command_line.TwoWays, init_args: {folder: here}}\n"
            if by == "config"
            else ""
        )
    )
    named = ["--data", TWO_WAYS, "--data.folder", "here"] if by == "flag" else []
    fit = ["fit", "--config", str(config), *named, *SMALL]
    assert main([*fit, "--dry_run", "true"]) == 0
    assert "one step of 64 examples" in caplog.text
    missing = ["fit", "--config", str(config), "--data", TWO_WAYS, *SMALL]
    if by == "flag":
        assert main(missing) == 1
        assert "folder" in _error(capsys)
    config.write_text(config.read_text().split("data:")[0] + "data: {init_args: {batch_size: 32}}\n")
    mnist = ["fit", "--config", str(config), "--data.dataset", "mnist5k", "--data.val_size", "100", *SMALL]
    assert main([*mnist, "--dry_run", "true"]) == 0
    assert "one step of 32 examples" in caplog.text


def test_labels_beyond_the_net_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("teacher", tmp_path / "run", "--model.net.classes", "7") == 1
    assert (
        "labels must be class indices from 0 to 6, as the net has 7 logits, or -1 where unknown, got 0 to 9"
        in _error(capsys)
    )


def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", "runs/nothere"]) == 1
    assert "no run and no checkpoint at runs/nothere" in _error(capsys)
    assert main(["reprot", "runs"]) == 1
    assert (
        "no subcommand reprot; expected one of fit, validate, test, predict, inspect, study, report, export"
        in _error(capsys)
    )
    assert main(["--version"]) == 0
    assert kd_lightning.__version__ in capsys.readouterr().out


def test_teachers_beside_reports(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(teacher, runs / "one")
    (runs / "report-pictures").mkdir()
    (runs / "report.html").touch()
    (runs / "died").mkdir()
    assert [file.parent.parent for file in teacher_checkpoints(f"{runs}/*")] == [runs / "one"]
    (runs / "died" / "config.yaml").touch()  # a run that has no checkpoint yet must not be missed in silence
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        teacher_checkpoints(f"{runs}/*")
    again = ["--overwrite", "true", "--model.teachers", str(runs / "one")]
    assert _fit("distill", runs / "one", *again) == 1
    assert "lies in the run that is to be overwritten" in _error(capsys)
    assert (runs / "one" / "checkpoints" / "last.ckpt").exists()


def test_an_evaluation_does_not_write_into_another_folder(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for command in ("test", "predict"):
        assert main([command, "--ckpt_path", str(teacher), "--run_dir", str(other)]) == 1
        assert f"--run_dir is where fit writes, got {other}; {command} writes into" in _error(capsys)
    assert not other.exists()


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m kd_lightning options | true; echo ${{PIPESTATUS[0]}}"
    bash = shutil.which("bash")
    assert bash is not None
    environment = os.environ | {"PYTHONPATH": str(CONFIGS.parent)}
    done = subprocess.run([bash, "-c", command], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "141\n"  # 128 and SIGPIPE
    assert done.stderr == ""


def test_without_a_subcommand_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "no subcommand; expected one of fit, validate, test, predict, inspect, study, report" in _error(capsys)


@pytest.mark.slow
def test_numbers_too_small_to_matter_are_0_in_all_threads() -> None:
    code = (
        "import torch; from kd_lightning import main; torch.set_num_threads(2); main(['options', 'MLP']); "
        "print('left', int((torch.full((1_000_000,), 1e-38) * 0.1).count_nonzero()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("left 0\n")
