"""Before the first step the teachers are checked on what validates the student."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning import MLP, DistillModule, TeacherModule
from tests.data.test_rows_in_memory import CLASSES, Partly

QUIET: dict[str, Any] = {
    "logger": False,
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = pytest.mark.filterwarnings("ignore:The .* does not have many workers")


def _record(data: Any, teacher: Any, **flags: Any) -> dict[str, Any]:
    """What is recorded of a teacher."""
    module = DistillModule(student=nn.Linear(1, CLASSES), teachers=teacher, teachers_must_beat_chance=False)
    lightning.Trainer(max_steps=1, **QUIET | flags).fit(module, data)
    return module.teacher_records[0]


class Signs(lightning.LightningDataModule):
    """The class is the input's sign; training inputs change their sign on the device."""

    def train_dataloader(self) -> DataLoader[Any]:
        inputs = torch.linspace(-1, 1, 40).unsqueeze(1)
        return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=4)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [self.train_dataloader()]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        inputs, labels = batch
        assert self.trainer is not None
        return (-inputs if self.trainer.training else inputs), labels


class Flipped(Signs):
    """Inputs change their sign before they go to the device."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        inputs, labels = batch
        return -inputs, labels


class OfSign(nn.Module):
    """It knows the class."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([-inputs, inputs, inputs.new_full((len(inputs), CLASSES - 2), -10.0)], dim=1)


@pytest.mark.parametrize(("limit", "examples"), [(3, 30), (0.5, 20), (1.0, 40)])
def test_as_many_batches_as_validate(limit: float, examples: int) -> None:
    data = Partly(val_size=40, eval_batch_size=10)
    record = _record(data, nn.Linear(1, CLASSES), limit_val_batches=limit)
    assert (record["examples"], record["split"]) == (examples, "validation")


def test_validation_batches_are_not_augmented() -> None:
    record = _record(Signs(), OfSign())
    assert (record["errors"], record["examples"]) == (0, 40)


def test_teachers_get_what_the_hook_before_the_transfer_makes() -> None:
    record = _record(Flipped(), OfSign())
    assert (record["errors"], record["examples"]) == (40, 40)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("before", ["validate", "fit"])
def test_only_what_the_fit_validates_on_counts(before: str) -> None:
    module = DistillModule(student=nn.Linear(1, CLASSES), teachers=OfSign(), teachers_must_beat_chance=False)
    trainer, data = lightning.Trainer(max_steps=1, **QUIET), Signs()
    if before == "validate":
        trainer.validate(module, data.val_dataloader(), verbose=False)
    else:
        trainer.fit(module, data.train_dataloader(), data.val_dataloader())
        trainer.fit_loop.epoch_loop.max_steps = 2
    trainer.fit(module, data.train_dataloader())
    assert module.teacher_records[0]["split"] == "training"


@pytest.mark.parametrize(("split_seed", "unknown", "seen"), [(0, 100, 0), (1, 100, 35), (0, 101, None)])
def test_what_a_teacher_has_seen_of_the_validation_is_said(
    split_seed: int, unknown: int, seen: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = MLP(hidden=[4], inputs=1, classes=CLASSES, mean=0.0, std=1.0)
    trainer = lightning.Trainer(max_steps=1, **QUIET)
    trainer.fit(TeacherModule(net), Partly(val_size=40))
    trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    with caplog.at_level("INFO"):
        record = _record(Partly(unknown, val_size=40, split_seed=split_seed), tmp_path / "teacher.ckpt")
    assert record["trained_on_validation_images"] == seen
    assert ("was trained on 35 of the examples that this run validates on" in caplog.text) == bool(seen)
    assert ("it is not known whether teacher" in caplog.text) == (seen is None)
