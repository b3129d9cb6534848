"""A plain LightningModule, as tutorials have it, learns from teachers with two more lines."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning import Batch, Distiller, Hints, MNISTDataModule, SoftTargets, StoreOptions
from kd_lightning.modules.teacher_setup import TeacherSetup
from kd_lightning.teachers.source import LiveTeachers, StoredTeachers, TeacherSource

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
]


class Tutorial(LightningModule):
    """The module that everyone begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels, *_ = batch
        return F.cross_entropy(self.net(inputs), labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is measured."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Taught(Tutorial):
    """The same module with two lines more."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.distiller = Distiller(**options)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses: dict[str, Tensor] = self.distiller(batch, self.net(batch[0]))
        self.losses, self.source = {name: loss.detach() for name, loss in losses.items()}, self.distiller.source
        return losses["loss"]


class TaughtWithForward(Taught):
    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)
        return logits


def teacher(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


@torch.no_grad()
def pairs() -> DataLoader[Any]:
    """Examples of which the teacher knows each label."""
    inputs = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(inputs, teacher()(inputs).argmax(dim=1)), batch_size=8)


def fit(module: LightningModule, data: Any, *, resume: Path | None = None, **flags: Any) -> Trainer:
    options: dict[str, Any] = {"max_steps": 3, "accelerator": "cpu"} | QUIET | flags
    trainer = Trainer(**options)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


def test_two_lines_train_and_leave_the_teacher_out(tmp_path: Path) -> None:
    taught = Taught(teachers=teacher(), temperature=4.0, teachers_must_beat_chance=False)
    before = [parameter.clone() for parameter in taught.net.parameters()]
    trainer = fit(taught, pairs())
    assert not any(torch.equal(*pair) for pair in zip(before, taught.net.parameters(), strict=True))
    mixed = 0.25 * taught.losses["soft_loss"] + 0.75 * taught.losses["hard_loss"]
    torch.testing.assert_close(taught.losses["loss"], mixed)
    assert taught.distiller.teacher_records[0]["errors"] == 0  # counted before the first step
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(before)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == Tutorial().state_dict().keys()
    assert checkpoint["kd_lightning"]["teachers"] == [taught.distiller.teacher_records[0]["fingerprint"]]
    Tutorial.load_from_checkpoint(tmp_path / "last.ckpt")


def test_a_run_goes_on_with_its_own_teachers_only(tmp_path: Path) -> None:
    options: dict[str, Any] = {"teachers_must_beat_chance": False}
    first = fit(Taught(teachers=teacher(), **options), pairs(), max_steps=8)  # a whole epoch
    first.save_checkpoint(tmp_path / "last.ckpt")
    on = fit(Taught(teachers=teacher(), **options), pairs(), resume=tmp_path / "last.ckpt", max_steps=10)
    assert on.global_step == 10
    with pytest.raises(ValueError, match=r"this run began with other teachers: .* bring the old teachers back"):
        fit(Taught(teachers=teacher(1), **options), pairs(), resume=tmp_path / "last.ckpt", max_steps=10)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
def test_a_whole_batch_of_transfer_data_finds_its_stored_targets(tmp_path: Path) -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=0, train_fraction=0.05, batch_size=50)
    options = {"teachers": teacher(), "teachers_must_beat_chance": False, "soft_targets": "stored"}
    taught = Taught(**options, store=StoreOptions(folder=str(tmp_path)))
    fit(taught, data)
    assert isinstance(taught.source, StoredTeachers)
    assert isinstance(taught.distiller.source, LiveTeachers)  # after the fit

    class Unpacks(Taught):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch.inputs, batch.labels), batch_idx)

    with pytest.raises(IndexError, match=r"need batches that say their rows, kd_lightning.Batch"):
        fit(Unpacks(**options, store=StoreOptions(folder=str(tmp_path))), data)


def test_teachers_are_checked_before_the_first_step() -> None:
    other_classes = nn.Sequential(nn.Flatten(), nn.Linear(784, 12))
    with pytest.raises(ValueError, match=r"must agree about the classes, got 10 of the student and 12 of"):
        fit(TaughtWithForward(teachers=other_classes, teachers_must_beat_chance=False), pairs())
    with pytest.raises(ValueError, match=r"teacher Sequential is no better than chance: .* errors on 64 training"):
        fit(Taught(teachers=teacher(1)), pairs())
    with pytest.raises(ValueError, match=r"soft_weight is 0.25 and no teachers are given"):
        fit(Taught(), pairs())
    student = Taught(teachers_must_beat_chance=False)
    student.distiller = Distiller(teachers=student.net)
    with pytest.raises(ValueError, match="the student is its own teacher"):
        fit(student, pairs())


def test_without_a_trainer_the_teachers_are_loaded_by_hand() -> None:
    distiller, batch = Distiller(teachers=teacher()), next(iter(pairs()))
    logits = torch.zeros(8, 10, requires_grad=True)
    with pytest.raises(RuntimeError, match="attribute of the LightningModule itself; in a loop of your own"):
        distiller(batch, logits)
    distiller.load()
    distiller(batch, logits)["loss"].backward()
    assert logits.grad is not None
    assert set(Distiller(soft_weight=0.0)(batch, logits)) == {"loss", "hard_loss"}


def test_a_module_takes_one_distiller() -> None:
    taught = Taught(teachers=teacher())
    taught.second = Distiller(teachers=teacher())
    with pytest.raises(ValueError, match="takes one Distiller, got several"):
        fit(taught, pairs())


def test_a_trainer_that_ran_it_runs_another_module() -> None:
    data = pairs()
    trainer = fit(Taught(teachers=teacher(), teachers_must_beat_chance=False), data)
    assert any(isinstance(callback, TeacherSetup) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    trainer.test(Tutorial(), data, verbose=False)
    assert not any(isinstance(callback, TeacherSetup) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def test_feature_losses_name_the_modules_own_layers(tmp_path: Path) -> None:
    hints = Hints(student="net.1", teacher="1")
    taught = TaughtWithForward(teachers=teacher(), feature_losses=[hints], teachers_must_beat_chance=False)
    trainer = fit(taught, pairs())
    assert taught.losses["hints"] > 0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    regressor = "distiller.feature_losses.hints.regressor.weight"
    assert regressor in torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    again = [Hints(student="net.1", teacher="1")]  # without its layers, which only a fit makes
    TaughtWithForward.load_from_checkpoint(tmp_path / "last.ckpt", feature_losses=again)


def test_a_copy_shares_the_teachers() -> None:
    taught = Taught(teachers=teacher(), teachers_must_beat_chance=False)
    fit(taught, pairs())
    other = copy.deepcopy(taught)
    assert other.distiller.teachers is taught.distiller.teachers
    assert other.distiller.options is taught.distiller.options


class Uniform(TeacherSource):
    def __call__(self, batch: Batch, temperature: float) -> SoftTargets:
        return SoftTargets(torch.full((len(batch.labels), 10), 0.1).log(), temperature)


def test_soft_targets_may_come_from_elsewhere() -> None:
    taught = Taught()
    taught.distiller.source = Uniform()
    fit(taught, pairs())
    assert taught.losses["soft_loss"] > 0
    assert isinstance(taught.distiller.source, Uniform)


# Under ddp_spawn a process ends with gloo's threads alive unless its group is destroyed, and then sometimes aborts.
TWO_PROCESSES = """
import atexit
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.modules.test_distiller import QUIET, Taught, Trainer, pairs, teacher

class DestroyGroup(Callback):
    def setup(self, trainer, pl_module, stage):
        atexit.register(torch.distributed.destroy_process_group)

if __name__ == "__main__":
    torch.manual_seed(0)
    taught = Taught(teachers=teacher(), temperature=4.0, teachers_must_beat_chance=False)
    kept = ModelCheckpoint(dirpath=".", filename="last", every_n_train_steps=3)
    two = {"accelerator": "cpu", "devices": 2, "strategy": STRATEGY, "max_steps": 3}
    Trainer(**QUIET | two | {"enable_checkpointing": True}, callbacks=[kept, DestroyGroup()]).fit(taught, pairs())
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes_train(strategy: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TWO_PROCESSES.replace("STRATEGY", repr(strategy)), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == Tutorial().state_dict().keys()
    assert checkpoint["global_step"] == 3
    assert len(checkpoint["kd_lightning"]["teachers"]) == 1


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("module", [Taught, TaughtWithForward])
def test_teachers_keep_their_number_type(module: type[Taught], precision: str) -> None:
    taught = module(teachers=teacher(), temperature=4.0)
    fit(taught, pairs(), precision=precision)
    assert torch.isfinite(taught.losses["soft_loss"])
    assert taught.distiller.teacher_records[0]["errors"] == 0
