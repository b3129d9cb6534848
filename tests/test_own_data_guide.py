"""docs/own-data.md, as a reader would follow it, and that such data is stored, resumed and named like the package's."""

import re
from pathlib import Path

import pytest
import torch

from kd_lightning import main

GUIDE = Path(__file__).parents[1] / "docs" / "own-data.md"
QUIET = ["--trainer.enable_progress_bar", "false"]


def _block(language: str) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return found[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_waves.py").write_text(_block("python"), encoding="utf-8")
    (tmp_path / "my_waves.yaml").write_text(_block("yaml"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _commands() -> list[list[str]]:
    return [line.removeprefix("python -m kd_lightning ").split() for line in _block("bash").splitlines()]


def _weights(run: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


def test_the_guides_data_trains_is_stored_resumed_and_reported(
    project: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in _commands():
        assert main([*command, *([] if command[0] == "report" else QUIET)]) == 0, command
    assert "1,800 training and 200 validation waves" in caplog.text
    assert "errors on 200 validation waves" in caplog.text
    assert "/best.ckpt on 2,000 waves, " in caplog.text
    assert "500 test waves" in capsys.readouterr().out
    student = [*_commands()[1], *QUIET, "--run_dir", "runs/waves/broken", "--save_every", "0"]
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", "25"]
    assert main([*student, *stop]) == 1
    assert main([*student, "--ckpt_path", "last"]) == 0
    straight = _weights("runs/waves/student")
    assert all(torch.equal(tensor, _weights("runs/waves/broken")[name]) for name, tensor in straight.items())
