"""What the rest of the package asks of a user's data module whose samples are replayed: ReplayedRows."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.inputs import Inputs, joined, mapped
from kd_lightning.data.replay import spread_rows
from kd_lightning.data.replay_fingerprint import files_fingerprint, replay_fingerprint
from kd_lightning.data.replayed_parts import ReplayedParts
from kd_lightning.data.statistics import InputStatistics, measured
from kd_lightning.data.transfer_data import MeasuresInputs, unit_of
from kd_lightning.data.user_datasets import class_names_of, files_of
from kd_lightning.runs.texts import counted

# Rows that are measured for the nets' first layer: their mean is off by about 3 % of the deviation, 1 / sqrt(1000).
MEASURED_ROWS = 1000


class ReplayedRows(LightningDataModule):
    """`TransferData` of a data module with map-style data sets.

    Training rows are counted from 0; validation rows go on after the last of them.

    Args:
        parts: Make the samples.
    """

    def __init__(self, parts: ReplayedParts) -> None:
        super().__init__()
        self.parts = parts
        self._fingerprint: str | None = None
        self._files_hash: str | None = None  # of the training files; empty where they are not known

    @property
    def unit(self) -> str:
        """What an example is, in the plural, as the data module names it."""
        return unit_of(self.parts.data)

    @property
    def class_names(self) -> Sequence[str] | None:
        """Name of each class, from the data module or its data sets' `classes`; None where they have none."""
        named: Sequence[str] | None = getattr(self.parts.data, "class_names", None)  # any data module may have them
        return named or next(filter(None, (class_names_of(each.source.dataset) for each in self.parts.used())), None)

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if neither the data module nor its data sets have it."""
        count: int | None = getattr(self.parts.data, "num_classes", None)  # any data module may have it
        return count or len(self.class_names or []) or None

    @property
    def predict_names(self) -> Sequence[str] | None:
        """File of each example that is predicted; None where the data set does not list them."""
        files = files_of(self.parts.existing("predict").source.dataset)
        return None if files is None else [str(file) for file in files]

    @property
    def view_count(self) -> int:
        """Views of each training example."""
        return self.parts.view_count

    @property
    def train_rows(self) -> Tensor:
        """Rows that train, (rows,) int64, ascending from 0."""
        return torch.arange(len(self.parts.training()))

    @property
    def val_rows(self) -> Tensor:
        """Rows that validate, (rows,) int64, ascending after those that train; maybe none."""
        first, val = len(self.parts.training()), self.parts.get("val")  # in this order: see ReplayedParts
        return torch.arange(first, first + (0 if val is None else len(val)))

    @property
    def row_count(self) -> int:
        """Rows that train and rows that validate."""
        return len(self.train_rows) + len(self.val_rows)

    def inputs(self, rows: Tensor, views: Tensor) -> Inputs:
        """What the nets get of these rows in these views, (batch, ...), on the CPU.

        Args:
            rows: (batch,) int64, of `train_rows` and `val_rows`, on any device.
            views: (batch,) int64 in [0, view_count), on any device; 0 for rows that validate.
        """
        rows, views = rows.cpu(), views.cpu()
        train, val = self.parts.training(), self.parts.get("val")
        validate = rows >= len(train)
        if val is None or not bool(validate.any()):
            return train.inputs(rows, views)
        if bool(validate.all()):
            return val.inputs(rows - len(train), views)
        made = joined([self.inputs(rows[each], views[each]) for each in (~validate, validate)])
        order = torch.cat([(~validate).nonzero(), validate.nonzero()]).flatten()
        return mapped(made, lambda tensor: tensor[order.argsort()])

    def input_statistics(self) -> InputStatistics:
        """Mean and deviation of what the nets get, measured on up to 1,000 training rows in view 0.

        The rows are spread evenly over all that train, so each process and each run measures the same. A data module
        that has an `input_statistics` of its own is asked instead. Inputs of several tensors stay as they are.

        Raises:
            ValueError: If an input is not a finite number.
        """
        if isinstance(self.parts.data, MeasuresInputs):
            return self.parts.data.input_statistics()
        train = self.parts.training()
        rows = spread_rows(MEASURED_ROWS, len(train))
        if not isinstance(train.inputs(rows[:1], torch.zeros_like(rows[:1])), Tensor):
            return InputStatistics(0.0, 1.0)
        return measured(cast(Tensor, inputs) for inputs in train.inputs_in_batches(rows, torch.zeros_like(rows)))

    def fingerprint(self) -> str:
        """Hash of all inputs and of what every view does to them; see `replay_fingerprint`."""
        if self._fingerprint is None:
            val = self.parts.get("val")
            hashes = [replay_fingerprint(self.parts.training(), self.view_count)]
            hashes += [] if val is None else [replay_fingerprint(val, 1)]
            self._fingerprint = " ".join(hashes)
        return self._fingerprint

    def describe(self) -> str:
        """What trains and validates, for people."""
        counts = f"{len(self.train_rows):,} training and {len(self.val_rows):,} validation {self.unit}"
        return f"{type(self.parts.data).__name__}, {counts}, {counted(self.view_count, 'seeded view')}"

    def provenance(self) -> dict[str, Any]:  # Any: plain values, which a checkpoint can hold
        """A hash of the training files; empty where the data set does not list them."""
        if self._files_hash is None:
            files = files_of(self.parts.training().source.dataset)
            self._files_hash = "" if files is None else files_fingerprint(files)
        return {"dataset": self._files_hash} if self._files_hash else {}

    def val_rows_seen(self, provenance: dict[str, Any]) -> int | None:
        """How many of the rows that validate another run trained on; None where it trained on other files, or unknown.

        Args:
            provenance: That run's, empty where it is unknown.
        """
        val = self.parts.get("val")
        if val is None:
            return 0
        if "dataset" not in provenance or provenance != self.provenance():
            return None
        files = files_of(val.source.dataset)
        if files is None:
            return None
        trained = set(files_of(self.parts.training().source.dataset) or [])
        return sum(file in trained for file in files)
