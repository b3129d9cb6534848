"""A resumed run goes on at its place in the data, whoever holds the place: the data module or the loader."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from kd_lightning import MLP, InMemoryDataModule, TeacherModule, TensorLoader, WarmupCosine
from kd_lightning.data.batches import TensorRows

pytestmark = pytest.mark.filterwarnings("ignore:You (defined|passed in) a .*Skipping val loop")

EXAMPLES = 40
INPUTS, LABELS = torch.rand(EXAMPLES, 6, generator=torch.Generator().manual_seed(0)), torch.arange(EXAMPLES) % 2
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "limit_val_batches": 0,
}


class Memory(InMemoryDataModule):
    num_classes = 2

    def read(self) -> Any:
        return (INPUTS, LABELS), (INPUTS, LABELS)


class Plain(lightning.LightningDataModule):
    """A user's own data module with a loader that knows its place."""

    def train_dataloader(self) -> Any:
        return TensorLoader(TensorRows(INPUTS), LABELS, torch.arange(EXAMPLES), batch_size=4, shuffle=True, seed=0)


class Foreign(lightning.LightningModule):
    """A module that is not of this package, and asks for the run's length as schedules do."""

    def __init__(self, *, asks: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.asks = asks

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch[0]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert not self.asks or self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(lightning.Callback):
    """Keeps the rows that each step saw, and a checkpoint after some."""

    def __init__(self, file: Path, at: int) -> None:
        self.file, self.at = file, at
        self.rows: list[list[int]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch.indices.tolist())
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.file)


def _fit(module: Any, data: Any, file: Path, *, resume: bool = False) -> list[list[int]]:
    seen = Seen(file, at=0 if resume else 13)
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", callbacks=[seen], **QUIET)
    trainer.fit(module, data, ckpt_path=file if resume else None, weights_only=True)
    return seen.rows


def _ours() -> TeacherModule:
    return TeacherModule(net=MLP(hidden=[4], inputs=6, classes=2), scheduler=WarmupCosine)


@pytest.mark.parametrize(
    ("module", "data"),
    [(_ours, lambda: Memory(batch_size=4, seed=0)), (_ours, Plain), (Foreign, lambda: Memory(batch_size=4, seed=0))],
    ids=["ours", "own loader", "own module"],
)
def test_a_resumed_run_sees_the_rest_of_its_epoch(module: Any, data: Any, tmp_path: Path) -> None:
    whole = _fit(module(), data(), tmp_path / "file.ckpt")
    assert len(whole) == 30
    assert whole[:10] != whole[10:20]
    assert _fit(module(), data(), tmp_path / "file.ckpt", resume=True) == whole[13:]


def test_a_checkpoint_whose_data_module_kept_its_options_is_resumed_at_its_place(tmp_path: Path) -> None:
    """Version 0.1.0 wrote options where the place is now, and no place but the loader's own."""
    file = tmp_path / "file.ckpt"
    whole = _fit(_ours(), Memory(batch_size=4, seed=0), file)
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["Memory"] == {"train_loader": {"epoch": 1, "position": 3}}
    torch.save(checkpoint | {"Memory": {"dataset": "mnist5k", "val_size": 0}}, file)
    assert _fit(_ours(), Memory(batch_size=4, seed=0), file, resume=True) == whole[13:]


def test_an_evaluated_checkpoint_does_not_move_the_next_fit(tmp_path: Path) -> None:
    file, data = tmp_path / "file.ckpt", Memory(batch_size=4, seed=0)
    whole = _fit(_ours(), data, file)
    tester = lightning.Trainer(accelerator="cpu", **QUIET)
    tester.test(_ours(), data, ckpt_path=file, verbose=False, weights_only=True)
    assert _fit(_ours(), data, tmp_path / "other.ckpt") == whole


def test_other_loaders_than_the_run_had_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.ckpt"
    _fit(_ours(), Plain(), file)
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] *= 2
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="the run had 2 training loaders that know their place, got 1"):
        _fit(_ours(), Plain(), file, resume=True)


@pytest.mark.parametrize("asks", [False, True])
def test_lightning_still_forgets_a_place_where_the_runs_length_was_asked_for(asks: bool, tmp_path: Path) -> None:
    """A canary: LoaderPlace can go when upstream restores the place (issue 20550)."""
    file = tmp_path / "file.ckpt"
    whole = _fit(Foreign(asks=asks), Plain(), file)
    resumed = _fit(Foreign(asks=asks), Plain(), file, resume=True)
    assert (resumed[:7] == whole[13:20]) == (not asks)
