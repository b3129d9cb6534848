"""What only a GPU can show: resident data, pinned transfers, live and stored teachers, bfloat16, resuming, export."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from kd_lightning import (
    MLP,
    AdaptedNet,
    DistillModule,
    MNISTDataModule,
    SeededViews,
    SmallConvNet,
    StoreOptions,
    hard_loss,
    main,
)
from kd_lightning.data.inputs import tensors_of
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from tests.data.pictures import Pictures
from tests.modules.test_distiller import Taught, fit, pairs
from tests.modules.test_distiller import teacher as teacher_net

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA, which torch does not find here"),
]
CONFIGS = Path(__file__).parents[1] / "configs" / "quickstart"
SHORT = ["--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"]
SHORT += ["--trainer.max_epochs", "3", "--save_every", "0"]


def _fit(config: str, run: Path, *options: str) -> int:
    return main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--run_dir", str(run), *SHORT, *options])


def _distill(teacher: Path, run: Path, *options: str) -> int:
    store = ["--model.store.folder", str(run.parent / "store"), "--model.teachers", str(teacher)]
    return _fit("distill", run, "--model.student.hidden", "[64]", *store, *options)


def _state(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def _assert_close(first: Path, second: Path, tolerance: float) -> None:
    for name, tensor in _state(first).items():
        torch.testing.assert_close(_state(second)[name], tensor, atol=tolerance, rtol=tolerance, msg=name)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    assert _fit("teacher", run, "--model.net.hidden", "[256,256]") == 0
    return run


def test_the_loader_pins_its_batches_and_resident_data_is_on_the_gpu() -> None:
    for resident in (False, True):
        data = MNISTDataModule(dataset="mnist5k", val_size=100, device_resident=resident)
        data.trainer = lightning.Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert tensors_of(batch.inputs)[0].is_cuda == resident
        assert batch.labels.is_pinned()


def test_resident_data_trains_to_the_same_weights(teacher: Path, tmp_path: Path) -> None:
    jitter = ["--data.augment", "kd_lightning.Jitter", "--model.soft_targets", "live"]
    assert _distill(teacher, tmp_path / "copied", *jitter) == 0
    assert _distill(teacher, tmp_path / "resident", *jitter, "--data.device_resident", "true") == 0
    _assert_close(tmp_path / "copied", tmp_path / "resident", 1e-6)


NETS = {
    "mlp": MLP(hidden=[64]),
    "conv": SmallConvNet(channels=[8], hidden=16),
    "adapted": AdaptedNet(MLP(hidden=[8], inputs=196), inputs=[v2.Resize([14, 14])], classes=[[0, 3, 4], 2]),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_live_teachers_answer_as_on_the_cpu(net: torch.nn.Module) -> None:
    ensemble = FrozenEnsemble([LoadedTeacher(net, "a net", {}), LoadedTeacher(net, "again", {})])
    images = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = ensemble(images)
    torch.testing.assert_close(ensemble.cuda()(images.cuda()).cpu(), expected, atol=2e-3, rtol=2e-3)
    ensemble.cpu()


@pytest.mark.parametrize("augment", ["null", "kd_lightning.Elastic", "kd_lightning.Mixtures"])
def test_stored_targets_train_as_live_ones(augment: str, teacher: Path, tmp_path: Path) -> None:
    views = [] if augment == "null" else ["--data.augment.views", "2"]
    for mode in ("live", "stored"):
        store = ["--model.store.dtype", "float32", "--model.soft_targets", mode, "--data.augment", augment, *views]
        assert _distill(teacher, tmp_path / mode, *store) == 0
    _assert_close(tmp_path / "live", tmp_path / "stored", 2e-3)


def _taught_by(named: Any, folder: Path, mode: Any) -> dict[str, Tensor]:
    """A student's weights after some steps on pictures that a user's own loader pins."""
    torch.manual_seed(1)
    module = DistillModule(
        MLP(hidden=[8], inputs=3 * 8 * 8, classes=3),
        teachers=named,
        temperature=4.0,
        soft_targets=mode,
        store=StoreOptions(folder=str(folder / "store"), dtype="float32"),
        teachers_must_beat_chance=False,
    )
    data = SeededViews(Pictures(str(folder / "pictures"), pin_memory=True), views=2, seed=0)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    lightning.Trainer(accelerator="gpu", devices=1, max_epochs=3, enable_model_summary=False, **quiet).fit(module, data)
    return module.student.state_dict()


def test_replayed_pictures_are_stored_as_they_are_live(tmp_path: Path) -> None:
    net = MLP(hidden=[8], inputs=3 * 8 * 8, classes=3)
    taught = [_taught_by(net, tmp_path, mode) for mode in ("live", "stored")]
    for name, tensor in taught[0].items():
        torch.testing.assert_close(taught[1][name], tensor, atol=2e-3, rtol=2e-3, msg=name)
    assert taught[0]["0.mean"].shape == (3,)  # measured


def test_a_file_of_logits_teaches(tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"
    np.save(file, np.random.default_rng(0).standard_normal((2, 60, 3), dtype=np.float32))  # views, rows, classes
    alone = _taught_by(str(file), tmp_path, "stored")
    beside = _taught_by([str(file), MLP(hidden=[8], inputs=3 * 8 * 8, classes=3)], tmp_path, "auto")
    assert not torch.equal(alone["2.weight"], beside["2.weight"])


def test_feature_losses_train(teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "hints.yaml"
    file.write_text(
        "model: {init_args: {feature_losses: [{class_path: kd_lightning.Hints, "
        'init_args: {student: "3", teacher: "3"}}]}}\n',
        encoding="utf-8",
    )
    assert _distill(teacher, tmp_path / "run", "--config", str(file)) == 0
    assert "feature_losses.hints.regressor.weight" in _state(tmp_path / "run")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_short_number_types_train(precision: str, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _distill(teacher, run, "--trainer.precision", precision) == 0
    assert (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["kd_lightning"]["validation"]["val/accuracy"]
        > 0.7
    )


@pytest.mark.parametrize("at", [7, 40])
def test_a_stopped_run_ends_as_if_it_had_not(at: int, teacher: Path, tmp_path: Path) -> None:
    dropout = ["--model.student.dropout_hidden", "0.5", "--data.augment", "kd_lightning.Jitter"]
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", str(at)]
    assert _distill(teacher, tmp_path / "straight", *dropout) == 0
    assert _distill(teacher, tmp_path / "broken", *dropout, *stop) == 1
    assert _distill(teacher, tmp_path / "broken", *dropout, "--ckpt_path", "last") == 0
    for name, tensor in _state(tmp_path / "straight").items():
        assert torch.equal(_state(tmp_path / "broken")[name], tensor), name


def test_a_run_from_the_gpu_is_tested_predicted_and_exported(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _distill(teacher, run) == 0
    assert main(["test", "--ckpt_path", str(run), *SHORT[:6]]) == 0
    assert main(["predict", "--ckpt_path", str(run), *SHORT[:6]]) == 0
    for form in ("onnx", "safetensors", "pt2"):
        assert main(["export", str(run), "--format", form]) == 0


def test_a_batch_without_labels_has_a_hard_loss_of_zero() -> None:
    logits = torch.randn(4, 10, device="cuda", requires_grad=True)
    loss = hard_loss(student_logits=logits, labels=torch.full((4,), -1, device="cuda"))
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_a_distiller_brings_its_teachers_to_the_gpu() -> None:
    taught = Taught(teachers=teacher_net(), teachers_must_beat_chance=False)
    fit(taught, pairs(), accelerator="gpu", devices=1)
    assert taught.distiller.teachers is not None
    assert all(parameter.is_cuda for parameter in taught.distiller.teachers.parameters())
