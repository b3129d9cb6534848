"""What the rest of the package asks of a user's data module whose samples are replayed: ReplayedRows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.replay import Replay
from kd_lightning.data.replay_fingerprint import files_fingerprint, replay_fingerprint
from kd_lightning.data.transfer_data import unit_of
from kd_lightning.data.user_datasets import class_names_of, files_of

Part = Literal["train", "val", "test", "predict"]


class ReplayedRows(LightningDataModule, ABC):
    """`TransferData` of a data module with map-style data sets.

    Training rows are counted from 0, validation rows go on after the last of them.
    """

    data: LightningDataModule
    view_count: int

    def __init__(self) -> None:
        super().__init__()
        self._replays: dict[Part, Replay | None] = {}
        self._fingerprint: str | None = None
        self._files_hash: str | None = None  # of the training files; empty where they are not known

    @abstractmethod
    def make_replay(self, part: Part) -> Replay | None:
        """Have the samples of a part made as the data module's loader says; None where there are none.

        Raises:
            ValueError: If the loader can't be used.
        """

    def replay(self, part: Part) -> Replay | None:
        """What makes the samples of a part; arguments and errors as in `make_replay`."""
        if part not in self._replays:
            self._replays[part] = self.make_replay(part)
        return self._replays[part]

    def training(self) -> Replay:
        """What makes the training samples.

        Raises:
            ValueError: If there are none.
        """
        replay = self.replay("train")
        if replay is None:
            raise ValueError(f"there is nothing to train on: {type(self.data).__name__} has no training examples")
        return replay

    def forget(self) -> None:
        """Forget data sets that may be others now; persistent worker processes end."""
        self._replays = {}
        self._fingerprint = self._files_hash = None

    @property
    def unit(self) -> str:
        """What an example is, in the plural, as the wrapped data module says it."""
        return unit_of(self.data)

    @property
    def class_names(self) -> Sequence[str] | None:
        """Name of each class, from the data module or its data sets' `classes`; None where they have none."""
        named: Sequence[str] | None = getattr(self.data, "class_names", None)  # any data module may have them
        datasets = [replay.source.dataset for replay in self._replays.values() if replay is not None]
        return named or next(filter(None, map(class_names_of, datasets)), None)

    @property
    def num_classes(self) -> int | None:
        """How many classes there are; None where neither the data module nor its data sets say it."""
        count: int | None = getattr(self.data, "num_classes", None)  # any data module may say it
        return count or len(self.class_names or []) or None

    @property
    def predict_names(self) -> Sequence[str] | None:
        """File of each example that is predicted, where the data set lists them."""
        replay = self.replay("predict")
        files = None if replay is None else files_of(replay.source.dataset)
        return None if files is None else [str(file) for file in files]

    @property
    def train_rows(self) -> Tensor:
        """Rows that train, (rows,) int64, ascending from 0."""
        return torch.arange(len(self.training()))

    @property
    def val_rows(self) -> Tensor:
        """Rows that validate, (rows,) int64, ascending, counted on after those that train; maybe none."""
        replay, first = self.replay("val"), len(self.training())
        return torch.arange(first, first + (0 if replay is None else len(replay)))

    def inputs(self, rows: Tensor, views: Tensor) -> Tensor:
        """What the nets get of these rows in these views, (batch, ...).

        Args:
            rows: (batch,) int64, as in `train_rows` and `val_rows`.
            views: (batch,) int64 in [0, view_count); 0 for those that validate.
        """
        train, val = self.training(), self.replay("val")
        validates = rows >= len(train)
        if val is None or not bool(validates.any()):
            return train.inputs(rows, views)
        made = val.inputs(rows[validates] - len(train), views[validates])
        if bool(validates.all()):
            return made
        both = made.new_empty(len(rows), *made.shape[1:])
        both[validates] = made
        both[~validates] = train.inputs(rows[~validates], views[~validates])
        return both

    def fingerprint(self) -> str:
        """Hash of all inputs and of what every view does to them; see `replay_fingerprint`."""
        if self._fingerprint is None:
            val = self.replay("val")
            parts = [replay_fingerprint(self.training(), self.view_count)]
            parts += [] if val is None else [replay_fingerprint(val, 1)]
            self._fingerprint = " ".join(parts)
        return self._fingerprint

    def describe(self) -> str:
        """What trains and validates, for people."""
        counts = f"{len(self.train_rows):,} training and {len(self.val_rows):,} validation {self.unit}"
        return f"{type(self.data).__name__}, {counts}, {self.view_count:,} seeded views"

    def provenance(self) -> dict[str, Any]:  # Any: plain values, which a checkpoint can hold
        """A hash of the training files; empty where the data set does not list them."""
        if self._files_hash is None:
            files = files_of(self.training().source.dataset)
            self._files_hash = "" if files is None else files_fingerprint(files)
        return {"dataset": self._files_hash} if self._files_hash else {}

    def val_rows_seen(self, provenance: dict[str, Any]) -> int | None:
        """How many of the rows that validate another run trained on; None where it trained on other files, or unknown.

        Args:
            provenance: That run's, empty where it is unknown.
        """
        if "dataset" not in provenance or provenance != self.provenance():
            return None
        val = self.replay("val")
        files = [] if val is None else files_of(val.source.dataset)
        if files is None:
            return None
        trained = set(files_of(self.training().source.dataset) or [])
        return sum(file in trained for file in files)
