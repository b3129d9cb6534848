"""Methods at the two seams train from YAML, are logged, resume bit for bit, and stay out of the exported net."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kd_lightning import KL, MLP, SoftLoss, SoftTargets, load_teachers, main

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
SMALL = ["--trainer.enable_progress_bar", "false", "--data.train_fraction", "0.2", "--trainer.log_every_n_steps", "2"]
REVERSE = ["--model.soft_loss", "kd_lightning.ReverseKL"]
HINTS = """
model:
  init_args:
    feature_losses:
      - {class_path: kd_lightning.Hints, init_args: {student: "3", teacher: "3", weight: 10}}
"""
MATCHED = """
model:
  init_args:
    soft_loss:
      class_path: kd_lightning.MatchedScale
      init_args: {batches: 4, loss: {class_path: kd_lightning.DKD, init_args: {other_weight: 2}}}
"""
LEARNT = """
model: {init_args: {soft_loss: tests.modules.test_own_methods.LearntFactor}}
"""
ATTENTION = """
model:
  init_args:
    student: {class_path: kd_lightning.SmallConvNet, init_args: {channels: [4, 4], hidden: 16}}
    feature_losses:
      - {class_path: kd_lightning.AttentionTransfer, init_args: {student: "13", teacher: "6", weight: 100}}
"""
METHODS = {"hints": HINTS, "matched": MATCHED, "learnt": LEARNT}


class LearntFactor(SoftLoss):
    """Plain distillation of logits times a factor that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        loss: Tensor = KL()(self.factor * student_logits, targets, labels)
        return loss


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


def _file(folder: Path, text: str) -> list[str]:
    file = folder / "method.yaml"
    file.write_text(text, encoding="utf-8")
    return ["--config", str(file)]


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a method, and a run of eight steps with it."""
    folder = tmp_path_factory.mktemp(request.param)
    method = _file(folder, METHODS[request.param])
    assert _distill(teacher, folder / "run", *method, "--trainer.max_steps", "8", "--save_every", "0") == 0
    return request.param, folder / "run"


def _last(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def _tags(run: Path) -> list[str]:
    events = EventAccumulator(str(run))
    events.Reload()
    tags: list[str] = events.Tags()["scalars"]
    return tags


@pytest.mark.slow
def test_another_soft_loss_trains_and_may_be_stored(teacher: Path, tmp_path: Path) -> None:
    common = ["--trainer.max_epochs", "2", "--trainer.max_steps", "6", *REVERSE]
    assert _distill(teacher, tmp_path / "live", *common, "--model.soft_targets", "live") == 0
    assert _distill(teacher, tmp_path / "stored", *common, "--model.soft_targets", "stored") == 0
    assert _distill(teacher, tmp_path / "kl", *common[:4]) == 0
    live, stored, kl = (_last(tmp_path / name)["net.2.weight"] for name in ("live", "stored", "kl"))
    torch.testing.assert_close(live, stored, atol=1e-4, rtol=1e-3)  # float16 logits
    assert not torch.allclose(live, kl, atol=1e-4)
    assert {"train/reverse_kl", "val/reverse_kl", "train/soft_loss", "val/soft_loss"} <= set(_tags(tmp_path / "live"))
    assert not {"train/kl", "val/kl"} & set(_tags(tmp_path / "kl"))  # the soft loss that all are compared with


@pytest.mark.parametrize(
    ("whole", "at", "own"),
    [
        ("hints", 4, "feature_losses.hints.regressor.weight"),
        pytest.param("learnt", 4, "soft_loss.factor", marks=pytest.mark.slow),
        pytest.param("matched", 2, "soft_loss.norms", marks=pytest.mark.slow),  # it measures four batches
        pytest.param("matched", 5, "soft_loss.norms", marks=pytest.mark.slow),
    ],
    indirect=["whole"],
)
def test_a_method_with_its_own_state_resumes_bit_for_bit(
    whole: tuple[str, Path], at: int, own: str, teacher: Path, tmp_path: Path
) -> None:
    method, run = whole
    options = [*_file(tmp_path, METHODS[method]), "--trainer.max_steps", "8", "--save_every", "0"]
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", str(at)]
    parts = tmp_path / "parts"
    assert _distill(teacher, parts, *options, *stop) == 1
    before = _last(parts)
    assert _distill(teacher, parts, *options, "--ckpt_path", "last") == 0
    after, expected = _last(parts), _last(run)
    assert expected.keys() == after.keys() >= {own, "net.2.weight"}
    assert all(torch.equal(tensor, after[name]) for name, tensor in expected.items())
    measured = method == "matched" and at > 4
    assert torch.equal(before[own], after[own]) == measured


@pytest.mark.parametrize(
    "whole",
    ["hints", pytest.param("learnt", marks=pytest.mark.slow), pytest.param("matched", marks=pytest.mark.slow)],
    indirect=True,
)
def test_a_methods_own_state_stays_out_of_the_exported_net(whole: tuple[str, Path], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    _, run = whole
    file = tmp_path / "student.safetensors"
    assert main(["export", str(run), "--format", "safetensors", "--output", str(file)]) == 0
    assert set(safetensors.load_file(file)) == set(MLP(hidden=[8]).state_dict())


@pytest.mark.parametrize("whole", ["hints"], indirect=True)
def test_hints_are_logged_and_the_run_is_evaluated_without_them(whole: tuple[str, Path]) -> None:
    _, run = whole
    assert {"train/hints", "val/hints"} <= set(_tags(run))
    assert main(["test", "--ckpt_path", str(run), "--trainer.enable_progress_bar", "false"]) == 0
    assert main(["validate", "--ckpt_path", str(run), "--trainer.enable_progress_bar", "false"]) == 0
    assert all("regressor" not in name for name in load_teachers(str(run))[0].net.state_dict())


def test_feature_losses_make_the_soft_targets_live(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert _distill(teacher, tmp_path / "run", *_file(tmp_path, HINTS), "--trainer.max_steps", "1") == 0
    assert "soft targets: live (feature losses need the teachers' activations)" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["matched"], indirect=True)
def test_a_matched_loss_trains_from_a_file(whole: tuple[str, Path]) -> None:
    _, run = whole
    assert {"train/soft_loss", "val/soft_loss", "train/soft_loss_scale", "train/dkd", "val/dkd"} <= set(_tags(run))
    assert int(_last(run)["soft_loss.measured"]) == 4


@pytest.mark.slow
def test_attention_transfer_trains_small_conv_nets_from_a_file(tmp_path: Path) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    net = "{class_path: kd_lightning.SmallConvNet, init_args: {channels: [8], hidden: 32}}"
    options = [*_file(tmp_path, f"model: {{init_args: {{net: {net}}}}}"), "--trainer.max_epochs", "2", *SMALL]
    assert main(["fit", "--config", str(CONFIGS / "teacher.yaml"), *options, "--run_dir", str(teacher)]) == 0
    method = [*_file(tmp_path, ATTENTION), "--model.teachers", str(teacher), "--trainer.max_epochs", "2", *SMALL]
    assert main(["fit", "--config", str(CONFIGS / "distill.yaml"), *method, "--run_dir", str(run)]) == 0
    events = EventAccumulator(str(run))
    events.Reload()
    first, *_, last = (event.value for event in events.Scalars("train/attention_transfer"))
    assert last < first
    assert "val/attention_transfer" in events.Tags()["scalars"]


def test_feature_losses_need_live_teachers(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _distill(teacher, tmp_path / "run", *_file(tmp_path, HINTS), "--model.soft_targets", "stored") == 1
    assert "feature losses need the live teachers' activations; set soft_targets" in capsys.readouterr().err


def test_feature_losses_need_one_teacher(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--model.teachers", f"[{teacher}, {teacher}]"]
    run = tmp_path / "run"
    fixed = ["--model.student.hidden", "[8]", "--run_dir", str(run), *SMALL]
    assert main(["fit", "--config", str(CONFIGS / "distill.yaml"), *_file(tmp_path, HINTS), *fixed, *two]) == 1
    assert "compare the student with one teacher, got 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("JensenShannon", "jensen_shannon"),
        ("LogitMatching", "logit_matching"),
        ("DKD", "dkd"),
        ("DIST", "dist"),
        ("NKD", "nkd"),
        ("Standardised", "standardised_kl"),
    ],
)
def test_every_soft_loss_trains_from_the_command_line(loss: str, name: str, teacher: Path, tmp_path: Path) -> None:
    chosen = ["--model.soft_loss", f"kd_lightning.{loss}", "--trainer.max_steps", "6"]
    assert _distill(teacher, tmp_path / "run", *chosen) == 0
    assert {"train/soft_loss", "val/soft_loss", f"train/{name}", f"val/{name}"} <= set(_tags(tmp_path / "run"))


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
