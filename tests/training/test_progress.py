"""The progress line: what it shows, when, and that it fits into a terminal."""

import time
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Trainer
from rich.console import Console
from torch import Tensor

from kd_lightning.data import MNISTDataModule
from kd_lightning.modules import TeacherModule
from kd_lightning.training import progress
from kd_lightning.training.progress import RunProgress

LOSSES = {"train/loss": 1.5, "train/soft_loss": 12.345, "train/hard_loss": 2.5}
ACCURACIES = {"train/accuracy": 0.912, "val/accuracy": 0.931}


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def _measured(**more: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in more.items()}


def _shown_after(line: progress._Line, clock: Clock, seconds: int) -> list[int]:
    """Seconds at which a line is printed, of a fit that makes a step a second."""
    shown = []
    for second in range(1, seconds + 1):
        clock.seconds += 1
        if line.is_due():
            line.show(second, "epoch 1/2", {})
            shown.append(second)
    return shown


def test_lines_come_at_growing_intervals(clock: Clock) -> None:
    shown = _shown_after(progress._Line(1000), clock, 900)
    assert shown[:9] == [10, 20, 30, 40, 50, 60, 70, 80, 92]
    steps = [after - before for before, after in pairwise(shown)]
    assert steps == sorted(steps)
    assert all(step - 1 < max(10, second / 8) <= step for step, second in zip(steps, shown[1:], strict=True))


def test_a_terminal_is_drawn_twice_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda: terminal)
    line = progress._Line(1000)
    clock.seconds += 0.4
    assert not line.is_due()
    clock.seconds += 800
    line.show(1, "epoch 1/2", {})
    clock.seconds += 0.5
    assert line.is_due()
    line.end()


def test_a_line_without_figures_has_no_colon(capsys: pytest.CaptureFixture[str]) -> None:
    line = progress._Line(20)
    line.show(3, "test", {})
    line.show(3, "epoch 1/2", _measured(**{"train/loss": 1.5}))
    assert capsys.readouterr().out.splitlines() == ["test, step 3 of 20", "epoch 1/2, step 3 of 20: loss 1.500"]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (LOSSES | ACCURACIES, "soft 12.345  hard 2.500  acc 0.912  val acc 0.931"),
        ({"train/loss": 1.5, "train/hard_loss": 1.5}, "hard 1.500"),
        ({"train/loss": 1.5} | ACCURACIES, "loss 1.500  acc 0.912  val acc 0.931"),
    ],
)
def test_the_loss_stands_where_it_has_no_parts(
    measured: dict[str, float], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    progress._Line(float("inf")).show(7, "epoch 1", _measured(**measured))
    assert capsys.readouterr().out == f"epoch 1, step 7: {expected}\n"


def test_a_teachers_fit_shows_its_loss(capsys: pytest.CaptureFixture[str]) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    trainer = Trainer(max_steps=2, log_every_n_steps=1, callbacks=[RunProgress()], logger=False, limit_val_batches=0)
    trainer.fit(TeacherModule(net), datamodule=MNISTDataModule(dataset="mnist5k", val_size=0))
    last = capsys.readouterr().out.splitlines()[-1]
    assert "step 2: loss " in last or "step 2 of 2: loss " in last
    assert "acc 0." in last


def test_the_line_fits_into_eighty_columns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Console(force_terminal=True, width=80, color_system=None, get_time=clock)
    monkeypatch.setattr(progress, "Console", lambda: terminal)
    line = progress._Line(7200)
    for step in (3598, 3599, 3600):
        clock.seconds += 1
        line.show(step, "epoch 100/100", _measured(**LOSSES, **ACCURACIES))
    line.end()
    last = capsys.readouterr().out.split("\r\x1b[2K")[-1].splitlines()[0]
    assert last.startswith("epoch 100/100 ")
    assert last.endswith(" 1:00:00 soft 12.345  hard 2.500  acc 0.912  val acc 0.931")
    assert len(last) <= 80
