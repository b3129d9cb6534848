"""README and the guides: their commands are understood, their links exist, the example of own-nets.md works."""

import importlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision.models import resnet18

from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import planned
from kd_lightning.reports.study_file import read_study
from scripts.result_tables import with_tables
from tests.guides import DOCS, ROOT, arguments_of, blocks, run_python

README = ROOT / "README.md"
QUIET = ["--trainer.enable_progress_bar", "false"]


def _own_net_commands(block: int) -> list[list[str]]:
    """The arguments of each command in a block of docs/own-nets.md."""
    return arguments_of(blocks(DOCS / "own-nets.md", "bash")[block])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's files, over a folder of PNG files, 200 a class to train and 50 to test."""
    make_shapes, module, from_python = blocks(DOCS / "own-nets.md", "python")
    (tmp_path / "my_project.py").write_text(module)
    (tmp_path / "from_python.py").write_text(from_python.replace("max_epochs=40", "max_epochs=4"))
    *configs, schedule = blocks(DOCS / "own-nets.md", "yaml")
    (tmp_path / "schedule.yaml").write_text(f"model:\n  init_args:\n{schedule}")
    names = ("my_data", "my_teacher", "my_student", "few_labels", "my_pretrained", "my_batches")
    for name, text in zip(names, configs, strict=True):
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
    for arguments in _own_net_commands(1):
        assert main([*arguments, *(QUIET if arguments[0] in {"fit", "test"} else [])]) == 0, arguments
    assert caplog.text.count("decoding 600 pictures of shapes/train") == 1
    assert re.search("computing soft targets: .* on 3,300 images", caplog.text)  # 6 views of 540, and 60 that validate
    runs = project / "runs/mine"
    assert _errors(runs / "teacher") < 30  # of 150
    assert _errors(runs / "student") < _errors(runs / "plain") - 20  # the guide: 20 and 70
    assert (runs / "student/student.onnx").is_file()
    predicted = (runs / "student/predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(predicted) == 51
    page = (runs / "report.html").read_text()
    assert "agreement" in page
    assert page.count("<svg") >= 8
    other = ["fit", "--config", "my_data.yaml", "--config", "my_student.yaml", "--config", "schedule.yaml"]
    assert main([*other, "--run_dir", "runs/other", "--dry_run", "true", *QUIET]) == 0
    assert not (project / "runs/other").exists()


@pytest.mark.slow
def test_the_guides_files_get_a_verdict(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = ["--trainer.max_epochs", "1", *QUIET]
    assert main([*_own_net_commands(1)[0], *length]) == 0  # the teacher
    merge, study = _own_net_commands(2)
    *merge, redirect, merged = merge
    assert redirect == ">"
    capsys.readouterr()
    assert main([*merge, *length, "--model.teachers_must_beat_chance", "false"]) == 0  # it has seen one epoch
    Path(merged).write_text(capsys.readouterr().out)
    assert main(study) == 0
    assert "Distillation here: " in capsys.readouterr().out


@pytest.mark.parametrize("block", [3, 4], ids=["pretrained", "batches"])
def test_other_teachers_and_data_of_the_guide_are_understood(block: int, project: Path) -> None:
    (arguments,) = _own_net_commands(block)
    assert main([*arguments, "--print_config"]) == 0


@pytest.mark.slow
def test_a_pretrained_teacher_of_the_guide_teaches(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    smaller = (project / "my_pretrained.yaml").read_text().replace("resnet50", "resnet18")
    (project / "my_pretrained.yaml").write_text(smaller)
    torch.save(resnet18().state_dict(), "resnet18-11ad3fa6.pth")  # of random numbers
    (arguments,) = _own_net_commands(3)
    any_teacher = ["--model.teachers_must_beat_chance", "false", "--data.batch_size", "8", "--data.val_size", "9"]
    assert main([*arguments, *QUIET, *any_teacher, "--dry_run", "true"]) == 0
    assert "teacher resnet18-11ad3fa6.pth: " in caplog.text


@pytest.mark.slow
def test_pictures_that_are_decoded_in_each_batch(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (seeded,) = _own_net_commands(4)
    length = ["--trainer.max_epochs", "1"]
    assert main([*seeded, *QUIET, *length, "--model.net", "my_project.TinyConv"]) == 0
    assert "FolderInBatches, 540 training and 60 validation examples, 10 seeded views" in caplog.text
    assert "inputs are normalised by mean [0.4" in caplog.text
    data = ["--data", "my_project.FolderInBatches", "--data.folder", "shapes"]
    net = ["--model", "kd_lightning.TeacherModule", "--model.net", "my_project.TinyConv"]
    assert main(["fit", *net, *data, *length, *QUIET, "--run_dir", "runs/live"]) == 0
    assert "since the data says nothing of its inputs" in caplog.text


def test_pictures_for_pretrained_nets_are_scaled_and_normalised(project: Path) -> None:
    inputs = importlib.import_module("my_project").ImageNetInputs()
    shown = inputs(torch.full((1, 3, 32, 32), 0.5))
    assert shown.shape == (1, 3, 224, 224)
    assert shown[0, :, 0, 0].tolist() == pytest.approx([0.0655, 0.1964, 0.4178], abs=1e-4)


@pytest.mark.slow
def test_own_net_from_python(project: Path) -> None:
    assert "test/teacher_agreement" in run_python(project / "from_python.py")


def test_commands_and_links_of_the_guides_lead_somewhere() -> None:
    read = cache(read_study)
    for guide in (README, *DOCS.glob("*.md"), *(DOCS / "results").glob("*.md")):
        text = guide.read_text()
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (guide.parent / link).exists(), f"{guide}: {link}"
        for study, options in re.findall(r"kd_lightning study (configs/[\w/.-]+)((?: [-\w.]+)*)", text):
            rows = options.partition("--rows ")[2].split()
            assert planned(read(ROOT / study), rows), f"{guide}: {study} {options}"
        for script in re.findall(r"(?:bash|sbatch|-m) (scripts[/.][\w./-]+)", text):
            path = script if "/" in script else script.replace(".", "/") + ".py"
            assert (ROOT / path).is_file(), f"{guide}: {script}"


@pytest.mark.parametrize(
    "guide",
    [README, DOCS / "tutorial.md", pytest.param(DOCS / "datasets.md", marks=pytest.mark.slow)],
    ids=lambda path: path.stem,
)
def test_commands_that_train_are_understood(guide: Path) -> None:
    commands = [each for block in blocks(guide, "bash") for each in arguments_of(block) if each[0] == "fit"]
    assert len(commands) > 1
    for arguments in commands:
        arguments[2] = str(ROOT / arguments[2])
        shown = [] if "--print_config" in arguments else ["--print_config"]
        assert main([*arguments, *shown]) == 0, arguments


def test_configurations_name_the_weight_and_the_temperature() -> None:
    """Their results must not depend on the defaults."""
    found = 0
    for file in (DOCS.parent / "configs").rglob("*.yaml"):
        model = yaml.safe_load(file.read_text(encoding="utf-8")).get("model", {})
        if str(model.get("class_path")).endswith("DistillModule"):
            found += 1
            weight = model["init_args"]["soft_weight"]
            assert weight == 0 or model["init_args"]["temperature"] > 0, file
    assert found >= 6


def test_the_readmes_configuration_is_the_shipped_one() -> None:
    (shown,) = blocks(README, "yaml")
    shipped = (ROOT / "configs" / "mnist" / "distill.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(shipped)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's advice to a loop without callbacks and workers
def test_the_readmes_python_trains(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(README, "python")
    names: dict[str, Any] = {}
    exec(block.replace("max_epochs=10", "max_steps=2, logger=False"), names)  # noqa: S102  # the README's own lines
    assert names["student"].net[-1].out_features == 10


@pytest.mark.parametrize("block", blocks(DOCS / "loggers.md", "yaml"))
def test_loggers_are_understood(block: str, tmp_path: Path) -> None:
    (tmp_path / "logger.yaml").write_text(block)
    config = str(ROOT / "configs" / "quickstart" / "student.yaml")
    assert main(["fit", "--config", config, "--config", "logger.yaml", "--print_config"]) == 0


def test_tables_of_results_are_those_of_the_studies() -> None:
    for guide in DOCS.glob("*.md"):
        text = guide.read_text(encoding="utf-8")
        assert with_tables(text, DOCS / "results") == text, f"{guide}: python -m scripts.result_tables"
    assert "| 133.8\u00a0±\u00a06.3 | 5 |" in (DOCS / "results.md").read_text(encoding="utf-8")
