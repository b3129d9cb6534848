"""docs/own-data.md, as a reader would follow it, and that such data is stored, resumed and named like the package's."""

from pathlib import Path

import pytest
import torch

from kd_lightning import main
from kd_lightning.runs.files import read_json
from tests.data.pictures import draw_pictures
from tests.guides import DOCS, arguments_of, blocks

GUIDE = DOCS / "own-data.md"
QUIET = ["--trainer.enable_progress_bar", "false"]
IN_MEMORY, SEEDED, UNLABELLED = 0, 1, 2  # the guide's sections


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, section in {"my_waves": IN_MEMORY, "my_pictures": SEEDED}.items():
        (tmp_path / f"{name}.py").write_text(blocks(GUIDE, "python")[section], encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(blocks(GUIDE, "yaml")[section], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _commands(section: int) -> list[list[str]]:
    return arguments_of(blocks(GUIDE, "bash")[section])


def _weights(run: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


def _resumes_bit_for_bit(command: list[str], run: str, at: int) -> None:
    """Stop such a fit at a step, resume it, and compare its weights with those of the whole run."""
    broken = [*command, *QUIET, "--run_dir", f"{run}-broken", "--save_every", "0"]
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", str(at)]
    assert main([*broken, *stop]) == 1
    assert main([*broken, "--ckpt_path", "last"]) == 0
    resumed = _weights(f"{run}-broken")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in _weights(run).items())


@pytest.mark.slow
def test_the_guides_data_trains_is_stored_resumed_and_reported(
    project: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = _commands(IN_MEMORY)
    for command in (*commands, *_commands(UNLABELLED)):
        assert main([*command, *([] if command[0] == "report" else QUIET)]) == 0, command
    assert "1,800 training and 200 validation waves" in caplog.text
    assert "1,800 training (90 with a label) and 200 validation waves" in caplog.text
    assert "errors on 200 validation waves" in caplog.text
    assert "/best.ckpt on 2,000 waves, " in caplog.text
    assert "500 test waves" in capsys.readouterr().out
    _resumes_bit_for_bit(commands[1], "runs/waves/student", at=25)


@pytest.mark.slow
def test_the_guides_pictures_are_stored_and_resumed(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_pictures(project / "pictures/train", each=50, side=32)
    draw_pictures(project / "pictures/val", side=32)
    draw_pictures(project / "pictures/test", each=8, side=32)
    commands = _commands(SEEDED)
    for command in commands:
        assert main([*command, *QUIET]) == 0, command
    assert "Pictures, 150 training and 60 validation examples, 2 seeded views" in caplog.text
    assert "soft targets: stored (2 views of each example instead of 6 passes)" in caplog.text
    assert " on 360 examples, " in caplog.text
    assert read_json(Path("runs/folders/student/metrics.json"))["test"]["examples"] == 24
    _resumes_bit_for_bit(commands[1], "runs/folders/student", at=13)
