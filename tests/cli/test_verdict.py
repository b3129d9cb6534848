"""`study CONFIG --verdict true`: one command says whether distillation pays."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import main

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
TEACHER = ["--model.net.hidden", "[64]", "--trainer.max_epochs", "4", "--trainer.enable_progress_bar", "false"]


def _config(folder: Path, teacher: Path) -> Path:
    text = (CONFIGS / "distill.yaml").read_text(encoding="utf-8")
    text = text.replace("runs/quickstart/teacher-*/checkpoints/last.ckpt", str(teacher))
    text = text.replace("[300, 300]", "[16]").replace("max_epochs: 40", "max_epochs: 2")
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _first_weights(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.slow
def test_one_command_gives_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--run_dir", "teacher", *TEACHER]) == 0
    config = _config(tmp_path, tmp_path / "teacher")
    command = ["study", str(config), "--verdict", "true", "--seeds", "2", "--threads", "1", "--report", "false"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Distillation here: " in shown
    assert "Against label smoothing: " in shown
    runs = tmp_path / "runs" / f"{tmp_path.name}-mine-verdict"
    command_line = (runs / f"{runs.name}.md").read_text(encoding="utf-8").partition("\n")[0]
    assert command_line == f"`python -m kd_lightning study {config} --verdict true --seeds 2 --threads 1`"
    written = json.loads((runs / "verdict.json").read_text(encoding="utf-8"))
    assert written["word"] in {"helps", "does not help", "can't tell"}
    assert len(written["against_plain"]["saved"]) == 2
    metrics = [
        json.loads((runs / f"{row}-0" / "metrics.json").read_text(encoding="utf-8")) for row in ("plain", "distilled")
    ]
    assert written["against_plain"]["saved"][0] == metrics[0]["test"]["errors"] - metrics[1]["test"]["errors"]
    # Gained and lost answers are those in which the wrong rows of the runs differ.
    lost, gained = written["against_plain"]["lost"], written["against_plain"]["gained"]
    assert gained - lost == sum(written["against_plain"]["saved"])
    assert (runs / "verdict.png").read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0  # all runs are done: it says the same again
    assert written == json.loads((runs / "verdict.json").read_text(encoding="utf-8"))
    assert main([*command[:-2], "--output", "tables"]) == 0
    assert written == json.loads((tmp_path / "tables" / "verdict.json").read_text(encoding="utf-8"))
    (runs / "verdict.json").unlink()
    assert main([*command[:-2], "--output", "tables"]) == 0
    assert "Distillation here: " in (runs / "report.html").read_text(encoding="utf-8")  # wherever the verdict lies


@pytest.mark.slow
def test_plain_and_distilled_start_from_the_same_weights(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--run_dir", str(teacher), *TEACHER]) == 0
    config = str(_config(tmp_path, teacher))
    still = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e-30", "--trainer.max_steps", "1"]
    plain = ["--model.soft_weight", "0", "--model.teachers", "null"]
    for name, options in {"plain": plain, "distilled": []}.items():
        assert main(["fit", "--config", config, "--run_dir", str(tmp_path / name), *still, *options]) == 0
    first, second = (_first_weights(tmp_path / name) for name in ("plain", "distilled"))
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("net."))


def _verdict(tmp_path: Path, teacher: list[str], student: dict[str, str], seeds: int) -> dict[str, Any]:
    """Train a teacher and give the verdict on its student.

    Args:
        tmp_path: The current folder.
        teacher: More flags of the teacher's fit.
        student: What stands for what in the student's configuration.
        seeds: How many.
    """
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--run_dir", "teacher", *TEACHER, *teacher]) == 0
    config = _config(tmp_path, tmp_path / "teacher")
    text = config.read_text(encoding="utf-8")
    for before, after in student.items():
        assert before in text
        text = text.replace(before, after)
    config.write_text(text, encoding="utf-8")
    command = ["study", str(config), "--verdict", "true", "--seeds", str(seeds), "--threads", "1", "--report", "false"]
    assert main(command) == 0
    written = (tmp_path / "runs" / f"{tmp_path.name}-mine-verdict" / "verdict.json").read_text(encoding="utf-8")
    verdict: dict[str, Any] = json.loads(written)
    return verdict


@pytest.mark.slow
def test_a_teacher_that_is_no_better_than_the_student_does_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    weak = ["--model.net.hidden", "[16]", "--trainer.max_epochs", "1"]
    verdict = _verdict(tmp_path, weak, {"max_epochs: 2": "max_epochs: 6"}, seeds=3)
    assert verdict["word"] in {"does not help", "can't tell"}
    assert verdict["against_plain"]["mean"] < 0
    lines = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("the teacher has nothing to teach: ") for line in lines) == 1  # and not once a seed


@pytest.mark.slow
def test_two_seeds_of_a_small_difference_can_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verdict = _verdict(tmp_path, [], {"soft_weight: 0.9": "soft_weight: 0.05"}, seeds=2)
    assert verdict["word"] == "can't tell"
    assert verdict["more_seeds"] is None or verdict["more_seeds"] > 0
