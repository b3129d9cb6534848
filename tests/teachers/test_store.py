"""Stored logits are the live ones, read by row and view."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from kd_lightning.data.augment import Affine, Augment, Jitter
from kd_lightning.data.batches import Batch
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.methods.hinton import soft_loss, soft_targets
from kd_lightning.modules.distill import DistillModule
from kd_lightning.nets.digits import MLP
from kd_lightning.teachers.store import Entries, SoftTargetStore, Table
from kd_lightning.teachers.store_plan import Mode, StoreOptions
from tests.teachers.stores import ensemble_of, few_digits, folders, opened, teacher_net


def test_a_batch_that_does_not_say_its_rows_gets_no_other_rows_targets(tmp_path: Path) -> None:
    data = few_digits()
    store = opened(ensemble_of(), data, StoreOptions(folder=str(tmp_path)))
    batch = Batch.of((torch.rand(2, 1, 28, 28), torch.tensor([1, 2])))
    with pytest.raises(IndexError, match=r"need batches that say their rows, kd_lightning.Batch; set soft_targets to"):
        store.logits(batch.indices, batch.views)


@pytest.mark.parametrize("augment", [None, Jitter(2), Affine(views=3)], ids=["plain", "jitter", "affine"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_stored_logits_are_the_live_ones(augment: Augment | None, dtype: Any, tmp_path: Path) -> None:
    data, ensemble = few_digits(augment), ensemble_of()
    store = opened(ensemble, data, StoreOptions(folder=str(tmp_path), dtype=dtype))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    for batch in data.train_dataloader():
        live = ensemble(data.inputs(batch.indices, batch.views))
        stored = store.logits(batch.indices, batch.views)
        assert stored is not None
        torch.testing.assert_close(stored, live, atol=tolerance, rtol=tolerance)
        losses = [
            soft_loss(student_logits=live[0] * 0.5, targets=soft_targets(teacher_logits=logits, temperature=4.0))
            for logits in (stored, live)
        ]
        torch.testing.assert_close(*losses, atol=tolerance, rtol=tolerance)
    assert data.val_size == 200
    rows = data.val_rows
    plain = ensemble(data.inputs(rows, torch.zeros_like(rows)))
    stored = store.logits(rows, torch.zeros_like(rows))
    assert stored is not None
    torch.testing.assert_close(stored, plain, atol=tolerance, rtol=tolerance)


class Keep(lightning.pytorch.Callback):
    """Keeps each training loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("augment", [None, Jitter(1)], ids=["plain", "jitter"])
def test_training_is_the_same_stored_and_live(
    augment: Augment | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kd_lightning.teachers.check.no_better_than_chance", lambda *_: False
    )  # random nets teach as well
    kept: list[list[float]] = []
    modes: tuple[Mode, ...] = ("stored", "live")
    for mode in modes:
        lightning.seed_everything(0)
        keep = Keep()
        module = DistillModule(
            student=MLP(hidden=[16]),
            teachers=[teacher_net(0), teacher_net(1)],
            temperature=4.0,
            soft_targets=mode,
            store=StoreOptions(folder=str(tmp_path), dtype="float32"),
        )
        trainer = lightning.Trainer(
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[keep]
        )
        trainer.fit(module, MNISTDataModule(dataset="mnist5k", val_size=200, train_fraction=0.1, augment=augment))
        kept.append(keep.losses)
    assert len(folders(tmp_path)) == 2
    torch.testing.assert_close(torch.tensor(kept[0]), torch.tensor(kept[1]), atol=1e-5, rtol=1e-5)


def test_rows_outside_the_store_are_refused(tmp_path: Path) -> None:
    data = few_digits()
    store = opened(ensemble_of(), data, StoreOptions(folder=str(tmp_path)))
    outside = torch.tensor(
        [row for row in range(500) if row not in {*data.train_rows.tolist(), *data.val_rows.tolist()}]
    )
    with pytest.raises(IndexError, match="rows that the stored soft targets were not made for"):
        store.logits(outside[:3], torch.zeros(3, dtype=torch.int64))


def test_tables_of_several_types_and_orders_are_read_together() -> None:
    data = few_digits()
    entries = Entries(data)
    values = torch.randn(len(entries), 3)
    shuffled = torch.randperm(len(entries))
    places = torch.empty_like(shuffled)
    places[shuffled] = torch.arange(len(entries))
    store = SoftTargetStore([Table(values.double()), Table(values[shuffled], places)], entries)
    some = torch.tensor([5, 0, 579, 7])
    assert torch.equal(store.entries(some), torch.stack([values[some], values[some]]))


def test_validation_rows_that_a_table_lacks_are_none() -> None:
    data = few_digits()
    entries = Entries(data)
    store = SoftTargetStore([Table(torch.randn(580, 3)), Table(torch.randn(380, 3))], entries)
    assert store.entry_count == 380
    rows = data.val_rows[:4]
    assert store.logits(rows, torch.zeros_like(rows)) is None
    assert store.logits(data.train_rows[:4], torch.zeros_like(rows)) is not None
