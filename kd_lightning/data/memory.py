"""Data that fits into memory: InMemoryDataModule, the base of a data set of your own."""

import hashlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.batches import Batch, TensorLoader, TensorRows
from kd_lightning.data.split import Split

Part = Literal["train", "test"]
_PROBED_AT_ONCE = 4_000_000  # numbers of the views that a fingerprint looks at together


class Examples(NamedTuple):
    """Examples in memory.

    Attributes:
        inputs: (examples, ...) of any type.
        labels: (examples,) int64, class numbers; -1 where unknown.
    """

    inputs: Tensor
    labels: Tensor


class RowsInMemory(LightningDataModule, ABC):
    """Which rows of the training examples validate and train, and what another run has seen of them.

    Attributes:
        unit: What an example is, in the plural, for all texts and tables.
    """

    unit: str = "examples"

    val_size: int
    split_seed: int
    keep_classes: list[int] | None
    drop_classes: list[int] | None
    train_fraction: float

    @abstractmethod
    def examples(self, part: Part) -> Examples:
        """All training or test examples, in their order."""

    def dataset_name(self) -> str:
        """The data set's name, for people."""
        return type(self).__name__

    def dataset_identity(self) -> str:
        """A text that two runs share only if they have the same training examples in the same order."""
        return f"{type(self).__qualname__} {self._inputs_hash}"

    @cached_property
    def _inputs_hash(self) -> str:
        """Hash of the training inputs; each checkpoint asks for it."""
        return hashlib.sha256(_bytes(self.examples("train").inputs)).hexdigest()

    @property
    def split(self) -> Split:
        """How the training examples are cut."""
        return Split(self.val_size, self.split_seed, self.keep_classes, self.drop_classes, self.train_fraction)

    def val_rows_of(self, split: Split) -> Tensor:
        """Rows that validate under a split, (rows,) int64, ascending; override it to hold out others.

        Raises:
            ValueError: If nothing would be left to train on.
        """
        labels = self.examples("train").labels
        if split.val_size >= len(labels):
            raise ValueError(
                f"val_size must leave something to train on, got {split.val_size} of {len(labels)} {self.unit}"
            )
        return split.val_rows(labels)

    @property
    def val_rows(self) -> Tensor:
        """Rows of the training examples that validate, (rows,) int64, ascending."""
        return self.val_rows_of(self.split)

    @property
    def train_rows(self) -> Tensor:
        """Rows of the training examples that train, the transfer set, (rows,) int64, ascending."""
        return self.split.train_rows(self.examples("train").labels, self.val_rows)

    def provenance(self) -> dict[str, Any]:  # Any: plain values, which a checkpoint can hold
        """The data set and the split: what a later run needs, to tell which examples this run trained on."""
        return {"dataset": self.dataset_identity(), **asdict(self.split)}

    def val_rows_seen(self, provenance: dict[str, Any]) -> int | None:
        """How many of the rows that validate another run trained on; None where it can't be told.

        Args:
            provenance: That run's, empty where it is unknown.
        """
        if "dataset" not in provenance:
            return None
        if provenance["dataset"] != self.dataset_identity() or len(self.val_rows) == 0:
            return 0
        names = [field.name for field in fields(Split)]
        if not provenance.keys() >= set(names):
            return None
        theirs = Split(**{name: provenance[name] for name in names})
        trained = theirs.train_rows(self.examples("train").labels, self.val_rows_of(theirs))
        return int(torch.isin(self.val_rows, trained).sum())


class ViewsInMemory(RowsInMemory):
    """What the nets get of an example in memory, in each of its views."""

    augment: Augment | None

    def to_inputs(self, raw: Tensor, views: Tensor | None) -> Tensor:
        """Turn a batch into what the nets get: uint8 becomes float in [0, 1], other fractions float32, integers stay.

        Override it where your data needs something else. It must depend on nothing but its arguments: a teacher's
        logits that were stored once are used each time an example comes in the same view.

        Args:
            raw: (batch, ...) as `read` gave them, on the device.
            views: (batch,) int64 in [0, view_count); None in evaluation, where each example stays as it is.
        """
        inputs = _as_numbers(raw)
        return inputs if self.augment is None or views is None else self.augment(inputs, views)

    @property
    def view_count(self) -> int:
        """Views of each training example, 1 without augmentation."""
        return 1 if self.augment is None else self.augment.view_count

    def inputs(self, rows: Tensor, views: Tensor) -> Tensor:
        """What the nets get of these rows of the training examples in these views, (batch, ...).

        Args:
            rows: (batch,) int64.
            views: (batch,) int64.
        """
        return self.to_inputs(self.examples("train").inputs.index_select(0, rows), views)

    def fingerprint(self) -> str:
        """Hash of the training inputs, and of every view of one example."""
        raw = self.examples("train").inputs
        digest = hashlib.sha256(_bytes(raw))
        seen: Iterator[Tensor] = iter(())
        if type(self).to_inputs is not ViewsInMemory.to_inputs:
            seen = _views_of(raw[:1], self.view_count, self.to_inputs)
        elif self.augment is not None:
            digest.update(type(self.augment).__qualname__.encode())
            probe = torch.rand(1, *raw.shape[1:], generator=torch.Generator().manual_seed(0))
            seen = _views_of(probe, self.view_count, self.augment)
        for inputs in seen:
            digest.update(_bytes(inputs))
        return digest.hexdigest()

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:  # Any: Lightning's signature
        """Move a batch to its device; on the CPU it is there, and looking through it would cost 0.05 ms."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # Any: Lightning's own signature
        """Turn a batch on the device into what the nets get, augmented in training.

        Lightning also passes the example of `to_onnx` and `to_torchscript` through here; it stays as it is.
        """
        if not isinstance(batch, Batch):
            return batch
        training = self.trainer is not None and self.trainer.training
        return batch._replace(inputs=self.to_inputs(batch.inputs, batch.views if training else None))


class InMemoryDataModule(ViewsInMemory):
    """Data that fits into memory, in whole-tensor batches. A data set of your own says `read` and `num_classes`.

    The training examples are cut into validation rows and the rest; the transfer set (what a net trains on) is the
    rest, narrowed by `keep_classes`, `drop_classes` and `train_fraction`. The test examples are only used to test.

    Args:
        batch_size: Training examples per step, over all devices, >= 1.
        eval_batch_size: Examples per evaluation step, over all devices, >= 1.
        val_size: Training examples held out for validation, stratified; 0 for none.
        split_seed: Seed of the validation split and of `train_fraction`.
        augment: Transforms of the training examples: Jitter, Affine or another Augment.
        keep_classes: Train on these classes only.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the training examples that are used, stratified, in (0, 1].
        seed: Seed of the order and of the views; by default that of seed_everything.
        device_resident: Keep all examples on the GPU, where a batch is then cut without a transfer.

    Attributes:
        num_classes: How many classes there are; a subclass must say it.
        class_names: Name of each class; None where their numbers are their names.
        predict_names: Name of each predicted example; None where they have none.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> class Waves(InMemoryDataModule):
        ...     unit, num_classes = "waves", 3
        ...
        ...     def read(self):
        ...         return (train_inputs, train_labels), (test_inputs, test_labels)
    """

    num_classes: int = 0
    class_names: Sequence[str] | None = None
    predict_names: Sequence[str] | None = None

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int = 0,
        split_seed: int = 0,
        augment: Augment | None = None,
        keep_classes: list[int] | None = None,
        drop_classes: list[int] | None = None,
        train_fraction: float = 1.0,
        seed: int | None = None,
        device_resident: bool = False,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.augment = augment
        self.keep_classes = keep_classes
        self.drop_classes = drop_classes
        self.train_fraction = train_fraction
        self.seed = seed
        self.device_resident = device_resident
        _check_classes(type(self).__name__, self.num_classes, self.class_names)
        self.split.check(self.num_classes)
        self._parts: tuple[Examples, Examples] | None = None
        self._place: dict[str, Any] | None = None  # where a resumed run's training loader goes on

    @abstractmethod
    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Inputs and labels of the training examples, then of the test examples; called once.

        Inputs are (examples, ...) tensors of any type, such as uint8 images; labels (examples,) int64, class numbers.
        What has to be downloaded belongs into `prepare_data`.
        """

    def setup(self, stage: str) -> None:
        """Read the examples once and cut the split.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If `read` gives something else than it should, or nothing is left to train on.
        """
        self._place = None  # of an earlier fit
        if self._parts is None:
            train, test = self.read()
            self._parts = (
                _checked(*train, "training", self.num_classes),
                _checked(*test, "test", self.num_classes),
            )
        if stage == "fit" and len(self.train_rows) == 0:
            raise ValueError(
                f"the transfer set is empty: nothing is left with val_size={self.val_size}, "
                f"keep_classes={self.keep_classes}, drop_classes={self.drop_classes}, "
                f"train_fraction={self.train_fraction}"
            )

    def examples(self, part: Part) -> Examples:
        """All training or test examples, in their order.

        Raises:
            RuntimeError: If they are not read yet.
        """
        if self._parts is None:
            raise RuntimeError("the data is not read yet; call setup first")
        return self._parts[0 if part == "train" else 1]

    @property
    def test_data_arguments(self) -> Sequence[str]:
        """A subclass's own arguments: they may decide which examples test, those of this class don't."""
        return _own_arguments(type(self))

    def describe(self) -> str:
        """What trains and validates, for people."""
        views = f", {type(self.augment).__name__} with {self.view_count:,} views" if self.augment else ""
        counts = f"{len(self.train_rows):,} training and {len(self.val_rows):,} validation {self.unit}"
        return f"{self.dataset_name()}, {counts}{views}"

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the transfer set; a resumed run's first loader goes on where the run had been."""
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]  # set by Lightning's connector
            raise ValueError("overfit_batches is not supported here; set train_fraction to train on few examples")
        loader = self.loader(self.examples("train"), self.train_rows, self.batch_size, shuffle=True)
        if self._place is not None:
            loader.load_state_dict(self._place)
            self._place = None
        return loader

    def val_dataloader(self) -> TensorLoader | list[TensorLoader]:
        """Batches of the validation rows in order; none where there are none."""
        rows = self.val_rows
        return self.loader(self.examples("train"), rows, self.eval_batch_size) if len(rows) else []

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test examples in order."""
        test = self.examples("test")
        return self.loader(test, torch.arange(len(test.labels)), self.eval_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the test examples."""
        return self.test_dataloader()

    def loader(
        self, examples: tuple[Tensor, Tensor], rows: Tensor, batch_size: int, *, shuffle: bool = False
    ) -> TensorLoader:
        """Batches of some rows, for this process and its device.

        Args:
            examples: Inputs and labels, as `read` gives them.
            rows: (rows,) int64, which of them are served.
            batch_size: Examples per step, over all devices.
            shuffle: Whether they train: in another order each epoch, augmented.
        """
        inputs, labels = examples
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        return TensorLoader(
            TensorRows(inputs.to(device) if self.device_resident else inputs),
            labels,
            rows,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed,
            view_count=self.view_count if shuffle else 1,
            pin_memory=device.type == "cuda",
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """The training loader's place in the data.

        Lightning keeps it too, but loses it where the loader is made before a checkpoint is read; see LoaderPlace.
        """
        loader = None if self.trainer is None else self.trainer.train_dataloader
        return {"train_loader": loader.state_dict()} if isinstance(loader, TensorLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next training loader go on from a `state_dict`; that of version 0.1.0 holds no place."""
        self._place = state_dict.get("train_loader")


def _own_arguments(data: type[InMemoryDataModule]) -> Sequence[str]:
    known = inspect.signature(InMemoryDataModule).parameters
    own = inspect.signature(data).parameters.values()
    return [each.name for each in own if each.name not in known and each.kind is not inspect.Parameter.VAR_KEYWORD]


def _check_classes(name: str, count: int, names: Sequence[str] | None) -> None:
    if count < 1:
        raise ValueError(f"{name}.num_classes must be >= 1, got {count}; set it in the class")
    if names is not None and len(names) != count:
        raise ValueError(f"{name}.class_names must hold a name for each of {count} classes, got {len(names)}")


def _checked(inputs: Tensor, labels: Tensor, part: str, num_classes: int) -> Examples:
    if len(inputs) != len(labels) or labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"read must give a class number for each of the {part} inputs, got inputs {tuple(inputs.shape)} and "
            f"labels {tuple(labels.shape)} of {labels.dtype}"
        )
    if len(labels) and not (int(labels.min()) >= -1 and int(labels.max()) < num_classes):
        raise ValueError(
            f"{part} labels must be from 0 to {num_classes - 1}, or -1 where unknown, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return Examples(inputs, labels.long())


def _as_numbers(raw: Tensor) -> Tensor:
    if raw.dtype == torch.uint8:
        return raw.float().div_(255)
    return raw.float() if raw.is_floating_point() else raw


def _bytes(tensor: Tensor) -> Any:  # Any: an array is a buffer
    """The numbers of a tensor of any type."""
    return tensor.contiguous().view(torch.uint8).numpy()


def _views_of(example: Tensor, view_count: int, show: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    """Every view of one example (1, ...), in parts that take little memory."""
    for views in torch.split(torch.arange(view_count), max(1, _PROBED_AT_ONCE // example.numel())):
        yield show(example.expand(len(views), *example.shape[1:]), views)
