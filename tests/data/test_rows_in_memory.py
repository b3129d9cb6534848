"""Which rows train, which validate, and which of them have a label."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kd_lightning import InMemoryDataModule
from kd_lightning.runs.resume import forbidden_changes

CLASSES, KNOWN, UNKNOWN = 4, 200, 100


class Partly(InMemoryDataModule):
    """Examples of four classes; a third more have no label."""

    num_classes = CLASSES

    def __init__(self, unknown: int = UNKNOWN, **options: Any) -> None:
        super().__init__(**options)
        self.unknown = unknown

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        labels = torch.cat([torch.arange(KNOWN) % CLASSES, torch.full((self.unknown,), -1)])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        inputs = torch.linspace(0, 1, len(labels)).view(-1, 1)
        return (inputs, labels[order]), (inputs[:8], torch.arange(8) % CLASSES)


def data(**options: Any) -> Partly:
    made = Partly(**options)
    made.setup("fit")
    return made


def labelled(of: Partly) -> Tensor:
    return of.train_rows[of.train_labels[of.train_rows] >= 0]


def test_the_labels_that_are_kept_are_those_of_the_few_examples() -> None:
    """So that a net that learns from few labels and all examples is compared with one that has these few only."""
    options = {"unknown": 0, "val_size": 40}
    few, all_of_them = data(**options, train_fraction=0.1), data(**options, label_fraction=0.1)
    assert len(all_of_them.train_rows) == 160
    assert torch.equal(labelled(all_of_them), few.train_rows)
    assert torch.bincount(few.examples("train").labels[few.train_rows]).tolist() == [4] * CLASSES
    more = labelled(data(**options, label_fraction=0.5))
    assert torch.isin(few.train_rows, more).all()
    served = [batch.labels[batch.labels >= 0] for batch in all_of_them.train_dataloader()]
    assert len(torch.cat(served)) == 16
    assert "160 training (16 with a label) and 40 validation examples" in all_of_them.describe()


def test_examples_without_a_label_train_and_never_validate() -> None:
    some = data(val_size=40, label_fraction=0.25)
    assert bool((some.examples("train").labels[some.val_rows] >= 0).all())
    assert len(some.train_rows) == KNOWN + UNKNOWN - 40
    assert len(labelled(some)) == 40  # a quarter of the 160 that have one
    with pytest.raises(ValueError, match="val_size must not exceed the 200 examples that have a label, got 201"):
        _ = data(val_size=201).val_rows
    with pytest.raises(ValueError, match=r"label_fraction must be in \(0, 1\], got 0"):
        Partly(label_fraction=0.0)


def test_stored_soft_targets_and_older_teachers_do_not_depend_on_labels() -> None:
    some, none = data(val_size=40), data(val_size=40, label_fraction=0.1)
    assert some.fingerprint() == none.fingerprint()
    assert torch.equal(some.train_rows, none.train_rows)
    assert torch.equal(some.val_rows, none.val_rows)
    trained = none.provenance()
    assert trained["label_fraction"] == 0.1
    other = data(val_size=40, split_seed=1)
    seen = other.val_rows_seen(trained)
    assert seen
    del trained["label_fraction"]  # as older checkpoints have it
    assert other.val_rows_seen(trained) == seen


def test_a_run_begun_before_the_option_was_there_goes_on() -> None:
    before: dict[str, Any] = {"data": {"init_args": {"val_size": 5}}}
    now: dict[str, Any] = {"data": {"init_args": {"val_size": 5, "label_fraction": 1.0}}}
    assert forbidden_changes(before, now) == []
    now["data"]["init_args"]["label_fraction"] = 0.5
    assert forbidden_changes(before, now) == ["data.init_args.label_fraction: the run has 1.0, asked for 0.5"]
    weight: dict[str, Any] = {"model": {"init_args": {"soft_weight": 0.9}}}  # the default of before
    assert forbidden_changes({}, weight) == []
    weight["model"]["init_args"]["soft_weight"] = 0.5
    assert forbidden_changes({}, weight) == ["model.init_args.soft_weight: the run has 0.9, asked for 0.5"]
