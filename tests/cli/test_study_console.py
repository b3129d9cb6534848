"""What a study shows on a terminal."""

import re
from functools import partial

import pytest
from rich.console import Console

from kd_lightning.cli import study_console
from kd_lightning.cli.study_console import StudyConsole, quiet
from kd_lightning.training.beforehand import LOGGER


def test_the_bar_names_the_run_that_trains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(study_console, "Console", partial(Console, force_terminal=True, width=80, color_system=None))
    with StudyConsole("tiny", ["teacher-0", "plain-0"], 2, verbose=False) as console:
        console.begin("teacher-0")
        with quiet():
            console._bar.refresh()
            LOGGER.warning("the teacher has nothing to teach")
    shown = capsys.readouterr()
    assert re.search("teacher-0 +0/2", shown.out)
    assert "the teacher has nothing to teach\n" in shown.out  # above the bar
    assert "nothing to teach" not in shown.err
