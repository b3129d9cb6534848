"""What version 0.1.0 wrote before the package had folders still loads, tests, teaches and is exported.

tests/files/before_rooms holds a teacher (hidden [8]) and a student (hidden [4]) of two epochs on mnist5k, as commit
8796889 left them.
"""

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch

from kd_lightning import load_exported, load_teachers, main

FILES = Path(__file__).parent / "files" / "before_rooms"
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "distill.yaml"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FILES, tmp_path / "runs")
    shutil.copytree(FILES / "teacher", tmp_path / "T0")  # where the student's configuration has it
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_an_older_student_is_tested_with_the_same_errors(runs: Path) -> None:
    before = json.loads((runs / "student" / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert main(["test", "--ckpt_path", "runs/student", *QUIET]) == 0
    now = json.loads((runs / "student" / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert now["errors"] == before["errors"] == 783
    assert now["nll"] == pytest.approx(before["nll"], rel=1e-5)


def test_an_older_teacher_teaches(runs: Path) -> None:
    fit = ["fit", "--config", str(CONFIG), "--model.teachers", "runs/teacher", "--model.student.hidden", "[4]"]
    assert main([*fit, "--run_dir", "new", "--trainer.max_steps", "2", *QUIET]) == 0


def test_an_older_run_is_trained_on(runs: Path) -> None:
    config = ["--config", "runs/student/config.yaml", "--run_dir", "runs/student", "--trainer.max_epochs", "3"]
    assert main(["fit", *config, "--ckpt_path", "last", *QUIET]) == 0
    checkpoint = torch.load(runs / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 87


def test_an_older_export_answers_as_its_checkpoint(runs: Path) -> None:
    net = load_teachers(str(runs / "student"))[0].net.eval()
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = net(images).detach()
    torch.testing.assert_close(load_exported(runs / "student" / "student.safetensors")(images), expected)
    session = onnxruntime.InferenceSession(runs / "student" / "student.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.as_tensor(answer), expected, rtol=1e-4, atol=1e-4)
