"""docs/methods.md, as a reader would follow it: its file, its options, its commands, its Python."""

from pathlib import Path

import pytest

from kd_lightning import main
from tests.guides import DOCS, ROOT, arguments_of, blocks, run_python

GUIDE = DOCS / "methods.md"
SHORT = ["--trainer.enable_progress_bar", "false", "--trainer.max_steps", "4", "--data.train_fraction", "0.3"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module, from_python = blocks(GUIDE, "python")
    (tmp_path / "my_methods.py").write_text(module, encoding="utf-8")
    (tmp_path / "from_python.py").write_text(from_python, encoding="utf-8")
    (tmp_path / "my_features.yaml").write_text(blocks(GUIDE, "yaml")[0], encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    teacher = ["fit", "--config", "configs/quickstart/teacher.yaml", "--model.net.hidden", "[32,32]"]
    assert main([*teacher, "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]) == 0
    return tmp_path


@pytest.mark.slow
def test_the_guides_commands_train(project: Path) -> None:
    commands = arguments_of("\n".join(blocks(GUIDE, "bash")))
    for arguments in (each for each in commands if each[0] == "fit"):
        teacher = [] if "--model.teachers" in arguments else ["--model.teachers", "runs/quickstart/teacher-0"]
        assert main([*arguments, *teacher, "--model.student.hidden", "[16,16]", *SHORT]) == 0, arguments
    assert (project / "runs/mine/features/checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_the_guides_python_trains(project: Path) -> None:
    run_python(project / "from_python.py")
