"""The worked example in docs/own-nets.md, as a stranger would follow it: its files, its commands, its Python."""

import importlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import planned
from kd_lightning.reports.study_file import read_study

DOCS = Path(__file__).parent.parent / "docs"


def _blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(), flags=re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's files, over a folder of PNG files, 200 a class to train and 50 to test."""
    make_shapes, module, from_python = _blocks("own-nets.md", "python")
    (tmp_path / "my_project.py").write_text(module)
    (tmp_path / "from_python.py").write_text(from_python.replace("max_epochs=40", "max_epochs=4"))
    data, teacher, student, _, _, schedule = _blocks("own-nets.md", "yaml")
    (tmp_path / "schedule.yaml").write_text(f"model:\n  init_args:\n{schedule}")
    for name, text in {"my_data": data, "my_teacher": teacher, "my_student": student}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    exec(make_shapes, {})  # noqa: S102  # the guide's own lines, in this test's folder
    assert len(list(Path("shapes").rglob("*.png"))) == 750
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _errors(run: Path) -> int:
    errors: int = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]["errors"]
    return errors


@pytest.mark.slow
def test_own_net_and_folder_of_pictures(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, commands = _blocks("own-nets.md", "bash")
    quiet = ["--trainer.enable_progress_bar", "false"]
    for line in commands.splitlines():
        arguments = line.removeprefix("python -m kd_lightning ").split()
        assert main([*arguments, *(quiet if arguments[0] in {"fit", "test"} else [])]) == 0, line
    assert caplog.text.count("decoding 600 pictures of shapes/train") == 1
    assert re.search("computing soft targets: .* on 3,300 images", caplog.text)  # 6 views of 540, and 60 that validate
    runs = project / "runs/mine"
    assert _errors(runs / "teacher") < 40  # of 150
    assert _errors(runs / "student") < 40
    assert (runs / "student/student.onnx").is_file()
    predicted = (runs / "student/predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(predicted) == 51
    page = (runs / "report.html").read_text()
    assert "agreement" in page
    assert page.count("<svg") >= 8
    other = ["fit", "--config", "my_data.yaml", "--config", "my_student.yaml", "--config", "schedule.yaml"]
    assert main([*other, "--run_dir", "runs/other", "--dry_run", "true", *quiet]) == 0
    assert not (project / "runs/other").exists()


@pytest.mark.slow
def test_pictures_that_are_decoded_in_each_batch(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ["--data", "my_project.FolderInBatches", "--data.folder", "shapes"]
    length = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    net = ["--model", "kd_lightning.TeacherModule", "--model.net", "my_project.TinyConv"]
    assert main(["fit", *net, *data, *length, "--run_dir", "runs/batches"]) == 0
    assert "since the data says nothing of its inputs" in caplog.text


def test_pictures_for_pretrained_nets_are_scaled_and_normalised(project: Path) -> None:
    inputs = importlib.import_module("my_project").ImageNetInputs()
    shown = inputs(torch.full((1, 3, 32, 32), 0.5))
    assert shown.shape == (1, 3, 224, 224)
    assert shown[0, :, 0, 0].tolist() == pytest.approx([0.0655, 0.1964, 0.4178], abs=1e-4)


@pytest.mark.slow
def test_own_net_from_python(project: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(DOCS.parent)}
    command = [sys.executable, "from_python.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "test/teacher_agreement" in done.stdout


def test_commands_and_links_of_the_guides_lead_somewhere() -> None:
    root = DOCS.parent
    read = cache(read_study)
    for guide in (root / "README.md", *DOCS.glob("*.md"), *(DOCS / "results").glob("*.md")):
        text = guide.read_text()
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (guide.parent / link).exists(), f"{guide}: {link}"
        for study, options in re.findall(r"kd_lightning study (configs/\S+)((?: [-\w.]+)*)", text):
            rows = options.partition("--rows ")[2].split()
            assert planned(read(root / study), rows), f"{guide}: {study} {options}"
        for script in re.findall(r"(?:bash|sbatch|-m) (scripts[/.][\w./-]+)", text):
            path = script if "/" in script else script.replace(".", "/") + ".py"
            assert (root / path).is_file(), f"{guide}: {script}"


@pytest.mark.parametrize("guide", ["tutorial.md", pytest.param("datasets.md", marks=pytest.mark.slow)])
def test_the_guides_fits_are_understood(guide: str, tmp_path: Path) -> None:
    root = DOCS.parent
    for block in _blocks(guide, "bash"):
        for line in block.splitlines():
            if line.startswith("python -m kd_lightning fit"):
                arguments = line.removeprefix("python -m kd_lightning ").replace("'", "").split()
                arguments[2] = str(root / arguments[2])
                shown = [] if "--print_config" in arguments else ["--print_config"]
                assert main([*arguments, *shown]) == 0, line


def test_the_readmes_configuration_is_the_shipped_one() -> None:
    root = DOCS.parent
    (shown,) = re.findall(r"```yaml\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    shipped = (root / "configs" / "mnist" / "distill.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(shipped)


@pytest.mark.parametrize("block", _blocks("loggers.md", "yaml"))
def test_loggers_are_understood(block: str, tmp_path: Path) -> None:
    (tmp_path / "logger.yaml").write_text(block)
    config = str(DOCS.parent / "configs" / "quickstart" / "student.yaml")
    assert main(["fit", "--config", config, "--config", "logger.yaml", "--print_config"]) == 0
