"""The worked example in docs/own-nets.md, as a stranger would follow it: its files, its commands, its Python."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import planned
from kd_lightning.reports.study_file import read_study

DOCS = Path(__file__).parent.parent / "docs"


def _blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(), flags=re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's files, over a folder of PNG digits, 60 a class to train and 10 to test."""
    make_digits, module, from_python = _blocks("own-nets.md", "python")
    (tmp_path / "my_project.py").write_text(module)
    (tmp_path / "from_python.py").write_text(
        from_python.replace("max_epochs=10", "max_epochs=3").replace("max_epochs=5", "max_epochs=15")
    )
    *configs, schedule = _blocks("own-nets.md", "yaml")
    (tmp_path / "schedule.yaml").write_text(f"model:\n  init_args:\n{schedule}")
    for name, text in zip(("my_teacher", "my_student"), configs, strict=True):
        (tmp_path / f"{name}.yaml").write_text(text.replace("max_epochs: 10", "max_epochs: 3").replace(": 5}", ": 15}"))
    exec(make_digits, {})  # noqa: S102  # the guide's own lines, in this test's folder
    assert len(list(Path("digits").rglob("*.png"))) == 700
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_own_net_and_folder_of_pictures(project: Path) -> None:
    _, commands = _blocks("own-nets.md", "bash")
    quiet = ["--trainer.enable_progress_bar", "false"]
    for line in commands.splitlines():
        arguments = line.removeprefix("python -m kd_lightning ").split()
        assert main([*arguments, *(quiet if arguments[0] in {"fit", "test"} else [])]) == 0, line
    assert (project / "runs/mine/student/student.onnx").is_file()
    page = (project / "runs/mine/report.html").read_text()
    assert "agreement" in page
    assert page.count("<svg") >= 8
    other = ["fit", "--config", "my_student.yaml", "--config", "schedule.yaml", "--run_dir", "runs/other"]
    assert main([*other, "--dry_run", "true", *quiet]) == 0
    assert not (project / "runs/other").exists()


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
        for study, options in re.findall(r"kd_lightning study (configs/\S+)((?: [-\w]+)*)", text):
            rows = options.partition("--rows ")[2].split()
            assert planned(read(root / study), rows), f"{guide}: {study} {options}"
        for script in re.findall(r"(?:bash|sbatch|-m) (scripts[/.][\w./-]+)", text):
            path = script if "/" in script else script.replace(".", "/") + ".py"
            assert (root / path).is_file(), f"{guide}: {script}"


def test_the_tutorials_commands_are_understood(tmp_path: Path) -> None:
    root = DOCS.parent
    for block in _blocks("tutorial.md", "bash"):
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
