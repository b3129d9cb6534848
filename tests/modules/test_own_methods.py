"""Methods at the two seams train from YAML, are logged, resume bit for bit, and stay out of the exported net."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning import load_teachers, main

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
SMALL = ["--trainer.enable_progress_bar", "false", "--data.train_fraction", "0.2", "--trainer.log_every_n_steps", "2"]
REVERSE = ["--model.soft_loss", "kd_lightning.ReverseKL"]
HINTS = """
model:
  init_args:
    feature_losses:
      - {class_path: kd_lightning.Hints, init_args: {student: "3", teacher: "3", weight: 10}}
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    options = ["--model.net.hidden", "[16]", "--trainer.max_epochs", "2", "--run_dir", str(run), *SMALL]
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), *options]) == 0
    return run


def _distill(teacher: Path, run: Path, *options: str) -> int:
    fixed = ["--model.student.hidden", "[8]", "--model.teachers", str(teacher), "--run_dir", str(run), *SMALL]
    folder = ["--model.store.folder", str(run.parent / "store")]
    return main(["fit", "--config", str(CONFIGS / "distill.yaml"), *options, *fixed, *folder])


def _hints(tmp_path: Path) -> list[str]:
    file = tmp_path / "hints.yaml"
    file.write_text(HINTS, encoding="utf-8")
    return ["--config", str(file)]


def _last(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def _tags(run: Path) -> list[str]:
    events = EventAccumulator(str(run))
    events.Reload()
    tags: list[str] = events.Tags()["scalars"]
    return tags


def test_another_soft_loss_trains_and_may_be_stored(teacher: Path, tmp_path: Path) -> None:
    common = ["--trainer.max_epochs", "2", "--trainer.max_steps", "6", *REVERSE]
    assert _distill(teacher, tmp_path / "live", *common, "--model.soft_targets", "live") == 0
    assert _distill(teacher, tmp_path / "stored", *common, "--model.soft_targets", "stored") == 0
    assert _distill(teacher, tmp_path / "kl", *common[:4]) == 0
    live, stored, kl = (_last(tmp_path / name)["net.2.weight"] for name in ("live", "stored", "kl"))
    torch.testing.assert_close(live, stored, atol=1e-4, rtol=1e-3)  # float16 logits
    assert not torch.allclose(live, kl, atol=1e-4)


def test_hints_train_their_regressor_and_resume_bit_for_bit(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hints = _hints(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    hints += ["--trainer.max_steps", "8", "--save_every", "0"]
    assert _distill(teacher, whole, *hints) == 0
    assert "soft targets: live (feature losses need the teachers' activations)" in caplog.text
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", "4"]
    assert _distill(teacher, parts, *hints, *stop) == 1
    before = _last(parts)
    assert _distill(teacher, parts, *hints, "--ckpt_path", "last") == 0
    regressor = "feature_losses.hints.regressor.weight"
    assert _last(whole).keys() == _last(parts).keys() >= {regressor, "net.2.weight"}
    assert all(torch.equal(tensor, _last(parts)[name]) for name, tensor in _last(whole).items())
    assert not torch.equal(before[regressor], _last(parts)[regressor])
    assert {"train/hints", "val/hints"} <= set(_tags(whole))
    assert main(["test", "--ckpt_path", str(whole), "--trainer.enable_progress_bar", "false"]) == 0
    assert main(["validate", "--ckpt_path", str(whole), "--trainer.enable_progress_bar", "false"]) == 0
    assert all("regressor" not in name for name in load_teachers(str(whole))[0].net.state_dict())


def test_feature_losses_need_live_teachers(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _distill(teacher, tmp_path / "run", *_hints(tmp_path), "--model.soft_targets", "stored") == 1
    assert "feature losses need the live teachers' activations; set soft_targets" in capsys.readouterr().err


def test_feature_losses_need_one_teacher(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--model.teachers", f"[{teacher}, {teacher}]"]
    run = tmp_path / "run"
    fixed = ["--model.student.hidden", "[8]", "--run_dir", str(run), *SMALL]
    assert main(["fit", "--config", str(CONFIGS / "distill.yaml"), *_hints(tmp_path), *fixed, *two]) == 1
    assert "compare the student with one teacher, got 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["JensenShannon", "LogitMatching", "DKD", "DIST", "NKD", "Standardised"])
def test_every_soft_loss_trains_from_the_command_line(loss: str, teacher: Path, tmp_path: Path) -> None:
    chosen = ["--model.soft_loss", f"kd_lightning.{loss}", "--trainer.max_steps", "6"]
    assert _distill(teacher, tmp_path / "run", *chosen) == 0
    assert {"train/soft_loss", "val/soft_loss"} <= set(_tags(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["SimilarityPreserving", "Relational"])
def test_every_feature_loss_trains_from_a_file(loss: str, teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "features.yaml"
    file.write_text(HINTS.replace("Hints", loss), encoding="utf-8")
    assert _distill(teacher, tmp_path / "run", "--config", str(file), "--trainer.max_steps", "6") == 0
    name = {"SimilarityPreserving": "similarity_preserving", "Relational": "relational"}[loss]
    assert {f"train/{name}", f"val/{name}"} <= set(_tags(tmp_path / "run"))


@pytest.mark.slow
def test_a_wrapped_soft_loss_is_chosen_in_a_file(teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrapped.yaml"
    file.write_text(
        "model: {init_args: {soft_loss: {class_path: kd_lightning.Standardised, init_args: "
        "{loss: {class_path: kd_lightning.DKD, init_args: {other_weight: 2}}}}}}\n",
        encoding="utf-8",
    )
    assert _distill(teacher, tmp_path / "run", "--config", str(file), "--trainer.max_steps", "6") == 0
