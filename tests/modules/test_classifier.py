"""What a teacher's and a student's module do from Python: Lightning's export and tuner, and what a batch must be."""

import pickle
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner.tuning import Tuner
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.optimization import WarmupCosine
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.nets.digits import MLP
from kd_lightning.training.predictions import prediction_rows

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    return MNISTDataModule(dataset="mnist5k", val_size=200)


def _trainer(**flags: Any) -> lightning.Trainer:
    return lightning.Trainer(**{"max_steps": 2} | QUIET | flags)


@pytest.mark.filterwarnings("ignore:.*to_torchscript.* has been deprecated")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:This property will be removed in 2.0.0")  # torch looks at every metric's attributes
@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_lightnings_own_export_works_after_a_fit(kind: str, data: MNISTDataModule, tmp_path: Path) -> None:
    module, images = TeacherModule(net=MLP(hidden=[8])), torch.rand(5, 1, 28, 28)
    _trainer().fit(module, data)
    module.eval()
    if kind == "onnx":
        module.to_onnx(tmp_path / "net.onnx", images)
        assert (tmp_path / "net.onnx").is_file()
        return
    traced = module.to_torchscript(method="trace", example_inputs=images)
    assert isinstance(traced, torch.jit.ScriptModule)
    torch.testing.assert_close(traced(images), module(images))


def test_a_loader_of_the_digits_is_pickled(data: MNISTDataModule) -> None:
    _trainer().fit(TeacherModule(net=MLP(hidden=[8])), data)
    loader = data.train_dataloader()
    for mine, theirs in zip(loader, pickle.loads(pickle.dumps(loader)), strict=True):  # noqa: S301  # our own bytes
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


class _Rates(lightning.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_rate_that_the_tuner_finds_is_used(data: MNISTDataModule) -> None:
    module, rates = TeacherModule(net=MLP(hidden=[8])), _Rates()
    trainer = _trainer(max_steps=1, callbacks=[rates])
    found = Tuner(trainer).lr_find(module, datamodule=data, num_training=20, min_lr=1e-4, max_lr=0.1)
    assert found is not None
    rates.seen.clear()
    trainer.fit(module, data)
    assert rates.seen == [found.suggestion()] == [module.lr]


@pytest.mark.parametrize("scheduler", [None, WarmupCosine])
def test_the_rate_that_the_callback_finds_is_used(scheduler: Any, data: MNISTDataModule) -> None:
    module, rates = TeacherModule(net=MLP(hidden=[8]), scheduler=scheduler), _Rates()
    finder = LearningRateFinder(min_lr=1e-4, max_lr=0.1, num_training_steps=20)
    _trainer(callbacks=[finder, rates]).fit(module, data)
    first = rates.seen[-2]
    assert first == module.lr
    assert (rates.seen[-1] < first) == (scheduler is not None)


def _pairs(labels: torch.Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.rand(len(labels), 1, 28, 28), labels), batch_size=8)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "distill"])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-100, "got -100 to 5; give examples without a label -1"),
        (10, "got 5 to 10; set the net's classes"),
    ],
)
@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_labels_that_are_no_class_are_refused(label: int, message: str, stage: str) -> None:
    # Torch leaves out rows with the label -100.
    pairs, net = _pairs(torch.tensor([5, label] * 8)), MLP(hidden=[4])
    module = DistillModule(student=net, teachers=MLP(hidden=[4])) if stage == "distill" else TeacherModule(net=net)
    run = getattr(_trainer(), "fit" if stage == "distill" else stage)
    with pytest.raises(ValueError, match=f"from 0 to 9, as .* 10 logits, or -1 where unknown, {message}"):
        run(module, pairs)


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_a_users_own_examples_are_predicted_in_their_order() -> None:
    batches = _trainer().predict(TeacherModule(net=MLP(hidden=[4])), _pairs(torch.arange(10).repeat(2)))
    rows = list(prediction_rows(batches or [], names=None))
    assert [row["index"] for row in rows] == list(range(20))
    assert [row["label"] for row in rows] == [*range(10)] * 2
