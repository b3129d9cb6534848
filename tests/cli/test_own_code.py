"""Where in a user's own code an error arose, and the line that says so."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from kd_lightning.cli.command_line import main
from kd_lightning.cli.messages import error_line
from kd_lightning.cli.own_code import own_place, raised_last, whole_traceback
from kd_lightning.nets.digits import MLP

PROJECT = Path(__file__).parents[2]
FIT = ["fit", "--config", str(PROJECT / "configs" / "quickstart" / "student.yaml"), "--trainer.fast_dev_run", "true"]
FIT += ["--trainer.enable_progress_bar", "false"]


NOTHING: dict[str, float] = {}


class Buggy(MLP):
    """A net that fails where it is asked to."""

    def __init__(self, at: str) -> None:
        super().__init__(hidden=[4])
        self.at = at
        if at == "init":
            NOTHING["no key"]  # init

    def forward(self, images: Tensor) -> Tensor:
        if self.at == "key":
            NOTHING["no key"]  # key
        if self.at == "shape":
            images.view(3, 7)  # shape
        return images.flatten(1)


def make_buggy() -> nn.Module:
    """A function in a class's place."""
    return Buggy("init")


class Holder(nn.Module):
    """Takes a net or its name: a union of types hides what went wrong in one of them."""

    def __init__(self, net: str | nn.Module) -> None:
        super().__init__()
        self.net = net


class BuggyPictures(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        raise IndexError("list index out of range")  # transform


class BuggyData(LightningDataModule):
    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(BuggyPictures())

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.train_dataloader()


class BuggyScheduler(LRScheduler):
    def get_lr(self) -> list[float | Tensor]:
        return [NOTHING["lr"]]  # scheduler


def _line_of(mark: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))


@pytest.mark.parametrize(
    ("flags", "reason", "mark"),
    [
        (
            ["--model.student", "tests.cli.test_own_code.Buggy", "--model.student.at", "init"],
            "'no key' (KeyError at",
            "init",
        ),
        (
            ["--model.student", "tests.cli.test_own_code.Buggy", "--model.student.at", "shape"],
            "Buggy failed on inputs of shape (128, 1, 28, 28): shape '[3, 7]' is invalid for input of size 100352 (",
            "shape",
        ),
        (
            [
                "--model.student",
                "tests.cli.test_own_code.Holder",
                "--model.student.net",
                "{class_path: tests.cli.test_own_code.make_buggy}",
            ],
            "'no key' (KeyError at",
            "init",
        ),
        (["--data", "tests.cli.test_own_code.BuggyData"], "list index out of range (IndexError at", "transform"),
        (["--model.scheduler", "tests.cli.test_own_code.BuggyScheduler"], "'lr' (KeyError at", "scheduler"),
    ],
    ids=["init", "forward", "in a union", "transform", "scheduler"],
)
def test_an_error_in_own_code_is_one_line_with_its_place(
    flags: list[str], reason: str, mark: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "lightning.pytorch")  # until this test's end
    assert main([*FIT, *flags]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    error = next(line for line in shown.splitlines() if line.startswith("error:"))
    assert error.startswith(f"error: {reason}")
    assert f"test_own_code.py:{_line_of(mark)} in " in error
    assert error.endswith("KD_LIGHTNING_DEBUG=1 shows the whole traceback)")


def test_debug_shows_the_whole_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_LIGHTNING_DEBUG", "1")
    assert main([*FIT, "--model.student", "tests.cli.test_own_code.make_buggy"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["", "1"])
def test_an_error_of_own_code_in_a_forked_process(debug: str) -> None:
    flags = ["--model.student", "tests.cli.test_own_code.Buggy", "--model.student.at", "key"]
    devices = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
    done = subprocess.run(
        [sys.executable, "-m", "kd_lightning", *FIT, *flags, *devices],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "KD_LIGHTNING_DEBUG": debug},
    )
    assert done.returncode == 1
    error = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert error.startswith("error: 'no key' (KeyError at ")
    assert f"test_own_code.py:{_line_of('key')} in forward" in error
    assert ("in forward\n" in done.stderr) == bool(debug)


def _raised_by(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.slow  # torch takes 5 s to end a worker that has failed
def test_an_error_in_a_data_loaders_worker_names_its_place() -> None:
    error = _raised_by(lambda: list(DataLoader(BuggyPictures(), num_workers=1)))
    line = str(error_line(error))
    assert line.startswith("list index out of range (IndexError at ")
    assert f"test_own_code.py:{_line_of('transform')} in __getitem__" in line


def test_only_own_code_is_named() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for function in (lambda: nn.Linear(3, 4)(torch.ones(5)), lambda: parser.parse_args(["--nothing"])):
        inside = whole_traceback(_raised_by(function)).split("in <lambda>\n", 1)[1]  # as if the program had called it
        assert own_place(inside) is None
    assert own_place('  File "<string>", line 3, in __init__\nKeyError: 1') is None
    installed = '  File "/x/lib/python3.11/site-packages/timm/net.py", line 3, in forward\n'
    assert str(own_place(installed)) == "/x/lib/python3.11/site-packages/timm/net.py:3 in forward"
    assert str(own_place(f'  File "/home/me/net.py", line 7, in f\n{installed}')) == "/home/me/net.py:7 in f"
    assert str(own_place(f'  File "{Path.cwd()}/net.py", line 7, in f')) == "net.py:7 in f"


def test_a_defect_of_the_program_keeps_its_traceback() -> None:
    assert error_line(KeyError("no code of the user's")) is None
    assert error_line(ValueError("an option")) == "an option"


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        ("KeyError: 'x'", ("KeyError", "'x'")),
        ("torch.OutOfMemoryError: first\nsecond: line", ("OutOfMemoryError", "first")),
        ("AssertionError", ("AssertionError", "AssertionError")),
    ],
)
def test_the_last_exception_of_a_printed_traceback(end: str, raised: tuple[str, str]) -> None:
    text = f'-- Process 1 terminated\n  File "a.py", line 3, in f\n    x: int = 3\n    ~~^^\n{end}\n'
    assert raised_last(text) == raised
