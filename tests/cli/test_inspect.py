"""The subcommand inspect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning import MNISTDataModule, load_net, main
from kd_lightning.cli.inspect import _names

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart" / "teacher.yaml"
QUICK = ["--trainer.max_steps", "20", "--trainer.enable_progress_bar", "false", "--model.net.hidden", "[16]"]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in "01":
        flags = ["--seed_everything", seed, "--run_dir", str(folder / f"teacher-{seed}")]
        assert main(["fit", "--config", str(CONFIG), *QUICK, *flags]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_their_folder(teachers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(teachers)
    monkeypatch.setenv("COLUMNS", "120")


def test_it_says_what_the_teachers_know(teachers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = teachers / "known.png"
    capsys.readouterr()
    assert main(["inspect", str(teachers / "teacher-*"), "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "teachers on 400 validation images" in shown
    assert "all together" in shown
    assert "agrees with the" in shown
    assert "│ teacher-1, last.ckpt │" in shown
    assert "dark knowledge: the soft loss of a student who knows only the label and how sure" in shown
    assert "the soft targets say more than the label" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_errors_are_those_of_validation(teachers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--ckpt_path", "teacher-0", "--trainer.enable_progress_bar", "false"]) == 0
    accuracy = next(line for line in capsys.readouterr().out.splitlines() if "val/accuracy" in line).split()[3]
    assert main(["inspect", "teacher-0"]) == 0
    shown = capsys.readouterr().out
    assert "agrees with" not in shown
    line = next(line for line in shown.splitlines() if "teacher-0, last.ckpt" in line)
    assert int(line.split("│")[2]) == round(400 * (1 - float(accuracy)))


def test_a_name_tells_which_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    best, last = "runs/a/checkpoints/best.ckpt", "runs/a/checkpoints/last.ckpt"
    assert _names([best, last]) == ("runs", ["a, best.ckpt", "a, last.ckpt"])
    assert _names([best, "runs/old/a/checkpoints/best.ckpt"]) == ("runs", ["a, best.ckpt", "old/a, best.ckpt"])
    assert _names(["runs/logits.npy"]) == ("runs", ["logits.npy"])


def test_a_file_of_logits_is_read_by_row(teachers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=400)
    data.prepare_data()
    data.setup("fit")
    images, _ = data.examples("train")
    with torch.no_grad():
        logits = load_net(teachers / "teacher-0")(images.unsqueeze(1).float() / 255)
    np.save(teachers / "all.npy", logits.numpy())
    np.save(teachers / "trained.npy", logits[data.train_rows].numpy())  # without those that validate

    def errors_and_title(*arguments: str) -> tuple[str, str]:
        assert main(["inspect", *arguments, "--config", str(CONFIG.with_name("student.yaml"))]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line.split("│")[2] for line in lines if line.startswith("│ ")), lines[0].strip()

    capsys.readouterr()
    live = errors_and_title(str(teachers / "teacher-0"))
    assert errors_and_title(str(teachers / "all.npy")) == live
    assert live[1] == "teachers on 400 validation images"
    batches = "2,560 training images"  # 20 of them
    assert errors_and_title(str(teachers / "trained.npy"))[1] == f"teachers on {batches}"


def test_unlabelled_data_and_lone_files_are_refused(teachers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone = teachers / "lone.ckpt"
    lone.write_bytes((teachers / "teacher-0" / "checkpoints" / "last.ckpt").read_bytes())
    assert main(["inspect", str(lone)]) == 1
    assert "lies in no run, so its data is unknown; name a configuration: --config" in capsys.readouterr().err
    assert main(["inspect", str(lone), "--config", str(CONFIG)]) == 0
    assert main(["inspect", str(lone), "--config", "nowhere.yaml"]) == 1
    assert "no configuration nowhere.yaml" in capsys.readouterr().err
