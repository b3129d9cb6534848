"""TransferData: what the rest of the package needs of a data module, and what it does with any other one."""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from kd_lightning.data.inputs import Inputs
from kd_lightning.data.statistics import InputStatistics


@runtime_checkable
class TransferData(Protocol):
    """A data module that can make its training examples again from their row and view.

    Its batches are `Batch`es. Teachers' logits on such data can be stored, and a run knows which examples its teachers
    were trained on. `InMemoryDataModule` has all of it, and `SeededViews` gives it to others. Any other
    LightningDataModule trains too, with live teachers.
    """

    @property
    def unit(self) -> str:
        """What an example is, in the plural: images, frames."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """Name of each class; None where their numbers are their names."""

    @property
    def predict_names(self) -> Sequence[str] | None:
        """Name of each example that is predicted, such as its file; None where they have none."""

    @property
    def view_count(self) -> int:
        """Views of each training example, 1 without augmentation."""

    @property
    def train_rows(self) -> Tensor:
        """Rows that train, the transfer set, (rows,) int64, ascending."""

    @property
    def val_rows(self) -> Tensor:
        """Rows that validate, (rows,) int64, maybe none; counted as `train_rows` are, and none of them."""

    def inputs(self, rows: Tensor, views: Tensor) -> Inputs:
        """What the nets get of these rows in these views, (batch, ...), on the CPU or where `rows` and `views` are.

        Args:
            rows: (batch,) int64, on any device.
            views: (batch,) int64 in [0, view_count), on the same device as `rows`; 0 is the plain example.
        """

    def fingerprint(self) -> str:
        """Hash of all inputs and of what every view does to them."""

    def describe(self) -> str:
        """What trains and validates, for people."""

    def provenance(self) -> dict[str, Any]:  # Any: plain values, which a checkpoint can hold
        """What a later run needs, to tell which examples this run trained on."""

    def val_rows_seen(self, provenance: dict[str, Any]) -> int | None:
        """How many of the validation rows another run trained on; None if unknown.

        Args:
            provenance: That run's, empty where it is unknown.
        """


@runtime_checkable
class HasUnit(Protocol):
    """A data module that names what its examples are; any LightningDataModule may."""

    @property
    def unit(self) -> str:
        """What an example is, in the plural: images, frames."""


@runtime_checkable
class MeasuresInputs(Protocol):
    """A data module that knows mean and deviation of its inputs; any LightningDataModule may."""

    def input_statistics(self) -> InputStatistics:
        """Mean and deviation of what the nets get of the training examples, without augmentation."""


@runtime_checkable
class HasClassNames(Protocol):
    """A data module that may know the names of its classes; any LightningDataModule may."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """Name of each class; None where their numbers are their names."""


def data_of(trainer: Trainer) -> LightningDataModule | None:
    """The trainer's data module; None where it was given loaders."""
    data: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's connector
    return data


def on_device(trainer: Trainer, batch: Any) -> Any:  # Any: whatever the loader gives
    """A batch as the trainer's loops hand it to the module: after all three hooks of its transfer.

    `Strategy.batch_to_device` calls the last two of them only.
    """
    data = data_of(trainer)
    own = data is not None and is_overridden("on_before_batch_transfer", data)
    owner: Any = data if own else trainer.lightning_module
    return trainer.strategy.batch_to_device(owner.on_before_batch_transfer(batch, 0))


def transfer_data(data: object) -> TransferData | None:
    """The data module if it is TransferData, else None.

    As `isinstance`, but it asks no property for its value, as Python before 3.12 does: rows are unknown before `setup`.
    """
    names = [name for name in vars(TransferData) if not name.startswith("_")]
    missing = object()
    whole = all(inspect.getattr_static(data, name, missing) is not missing for name in names)
    return cast(TransferData, data) if whole else None


def unit_of(data: object) -> str:
    """What a data module's examples are, in the plural; "examples" if it has no `unit`."""
    return data.unit if isinstance(data, HasUnit) else "examples"


def class_names_of(data: object) -> list[str] | None:
    """Names of a data module's classes; None where it knows none."""
    names = data.class_names if isinstance(data, HasClassNames) else None
    return None if names is None else [str(name) for name in names]
