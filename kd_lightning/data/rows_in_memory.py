"""Training examples in memory: which of them train, and what the nets get of each in each of its views."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.split import Split
from kd_lightning.data.statistics import InputStatistics, measured

Part = Literal["train", "test"]
_PROBED_AT_ONCE = 4_000_000  # numbers of the views that a fingerprint looks at together
_MEASURED_AT_ONCE = 1024  # examples


class Examples(NamedTuple):
    """Examples in memory.

    Attributes:
        inputs: (examples, ...) of any type.
        labels: (examples,) int64, class numbers; -1 where unknown.
    """

    inputs: Tensor
    labels: Tensor


class Cut(NamedTuple):
    """What a split makes of the training examples.

    Attributes:
        val_rows: (rows,) int64, ascending.
        train_rows: (rows,) int64, ascending.
        train_labels: (examples,) int64, -1 where unknown.
    """

    val_rows: Tensor
    train_rows: Tensor
    train_labels: Tensor


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
    label_fraction: float
    _made_cut: tuple[str, int, Cut] | None = None  # of a split of some labels

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
        return Split(
            self.val_size,
            self.split_seed,
            self.keep_classes,
            self.drop_classes,
            self.train_fraction,
            self.label_fraction,
        )

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
        labelled = int((labels >= 0).sum())
        if split.val_size > labelled:
            raise ValueError(
                f"val_size must not exceed the {labelled} {self.unit} that have a label, got {split.val_size}"
            )
        return split.val_rows(labels)

    @property
    def val_rows(self) -> Tensor:
        """Rows of the training examples that validate, (rows,) int64, ascending."""
        return self._cut.val_rows

    @property
    def train_rows(self) -> Tensor:
        """Rows of the training examples that train, the transfer set, (rows,) int64, ascending."""
        return self._cut.train_rows

    def train_rows_of(self, split: Split) -> Tensor:
        """Rows that train under a split, (rows,) int64, ascending; override it to choose others."""
        return split.train_rows(self.examples("train").labels, self.val_rows_of(split))

    @property
    def row_count(self) -> int:
        """Rows of all training examples, those that neither train nor validate included."""
        return len(self.examples("train").labels)

    @property
    def train_labels(self) -> Tensor:
        """Labels of the training examples as training sees them, (examples,) int64, -1 where unknown."""
        return self._cut.train_labels

    @property
    def _cut(self) -> Cut:
        """What the split makes of the examples; kept, since making it takes 60 ms and each checkpoint asks for it."""
        split, labels = self.split, self.examples("train").labels
        if self._made_cut is None or self._made_cut[:2] != (repr(split), id(labels)):
            train_rows = self.train_rows_of(split)
            cut = Cut(self.val_rows_of(split), train_rows, split.train_labels(labels, train_rows))
            self._made_cut = repr(split), id(labels), cut
        return self._made_cut[2]

    def provenance(self) -> dict[str, Any]:  # Any: plain values, which a checkpoint can hold
        """The data set and the split: what a later run needs, to tell which examples this run trained on."""
        return {"dataset": self.dataset_identity(), **asdict(self.split), "validation_examples": len(self.val_rows)}

    def val_rows_seen(self, provenance: dict[str, Any]) -> int | None:
        """How many of the validation rows another run trained on; None if unknown.

        It is unknown where that run had another data set: they may share examples, as a folder of pictures does with
        the same folder and one picture more.

        Args:
            provenance: That run's, empty where it is unknown.
        """
        if len(self.val_rows) == 0:
            return 0
        if "dataset" not in provenance or provenance["dataset"] != self.dataset_identity():
            return None
        provenance = {"label_fraction": 1.0} | provenance  # older ones lack it
        names = [field.name for field in fields(self.split)]
        if not provenance.keys() >= set(names):
            return None
        theirs = type(self.split)(**{name: provenance[name] for name in names})
        return int(torch.isin(self.val_rows, self.train_rows_of(theirs)).sum())


class ViewsInMemory(RowsInMemory):
    """What the nets get of an example in memory, in each of its views."""

    augment: Augment | Mixtures | None

    def to_inputs(self, raw: Tensor, views: Tensor | None) -> Inputs:
        """Turn a batch into what the nets get: uint8 becomes float in [0, 1], other fractions float32, integers stay.

        Override it where your data needs something else; it may give a tuple or dict of tensors, of which each net
        picks its own. It must depend on nothing but its arguments: a teacher's logits that were stored once are used
        each time an example comes in the same view.

        Args:
            raw: (batch, ...) as `read` gave them, on the device.
            views: (batch,) int64 in [0, view_count); None in evaluation, where each example stays as it is.
        """
        if self.augment is None or views is None or isinstance(self.augment, Mixtures):
            return _as_numbers(raw)
        if self.augment.only_moves:  # of bytes there are a quarter
            return _as_numbers(self.augment(raw, views))
        return self.augment(_as_numbers(raw), views)

    @property
    def view_count(self) -> int:
        """Views of each training example, 1 without augmentation."""
        return 1 if self.augment is None else self.augment.view_count

    def inputs(self, rows: Tensor, views: Tensor) -> Inputs:
        """What the nets get of these rows of the training examples in these views, (batch, ...), made where `rows` are.

        Args:
            rows: (batch,) int64, on any device.
            views: (batch,) int64, on the same.
        """
        raw = self.examples("train").inputs.index_select(0, rows.cpu()).to(rows.device)
        return self._shown(raw, rows, views)

    def _shown(self, raw: Tensor, rows: Tensor, views: Tensor) -> Inputs:
        """What the nets get of training examples (batch, ...) that stand in these rows."""
        if not isinstance(self.augment, Mixtures):
            return self.to_inputs(raw, views)
        partners = self.augment.partners(rows.cpu(), views.cpu(), self.train_rows)
        others = self.examples("train").inputs.index_select(0, partners).to(raw.device, non_blocking=True)
        return self.augment.mix(self.to_inputs(raw, None), self.to_inputs(others, None), rows, views)

    def input_statistics(self) -> InputStatistics:
        """Mean and deviation of what the nets get of the training examples, without augmentation.

        Nets that are given none normalise by them. Override it where others are right. Inputs of several tensors stay
        as they are.

        Raises:
            ValueError: If an input is not a finite number.
        """
        raw = self.examples("train").inputs
        chunks = torch.split(self.train_rows, _MEASURED_AT_ONCE)
        if not isinstance(self.to_inputs(raw[:1], None), Tensor):
            return InputStatistics(0.0, 1.0)
        return measured(cast(Tensor, self.to_inputs(raw.index_select(0, rows), None)) for rows in chunks)

    def fingerprint(self) -> str:
        """Hash of the training inputs, and of every view of one example."""
        raw = self.examples("train").inputs
        digest = hashlib.sha256(_bytes(raw))
        seen: Iterator[Inputs] = iter(())
        if isinstance(self.augment, Mixtures):
            first = self.train_rows[:1]
            seen = _views_of(raw[first], self.view_count, lambda own, views: self._shown(own, first, views))
        elif type(self).to_inputs is not ViewsInMemory.to_inputs:
            seen = _views_of(raw[:1], self.view_count, self.to_inputs)
        elif self.augment is not None:
            digest.update(type(self.augment).__qualname__.encode())
            probe = torch.rand(1, *raw.shape[1:], generator=torch.Generator().manual_seed(0))
            seen = _views_of(probe, self.view_count, self.augment)
        for inputs in seen:
            if isinstance(inputs, dict):
                digest.update(repr(list(inputs)).encode())
            for tensor in tensors_of(inputs):
                digest.update(_bytes(tensor))
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
        raw = cast(Tensor, batch.inputs)  # as `read` gave them
        if self.trainer is None or not self.trainer.training:
            return batch._replace(inputs=self.to_inputs(raw, None))
        if isinstance(self.augment, Mixtures):
            batch = batch._replace(labels=self.augment.labels(batch.labels, batch.views))
        return batch._replace(inputs=self._shown(raw, batch.indices, batch.views))


def _as_numbers(raw: Tensor) -> Tensor:
    if raw.dtype == torch.uint8:
        return raw.float().div_(255)
    return raw.float() if raw.is_floating_point() else raw


def _bytes(tensor: Tensor) -> Any:  # Any: an array is a buffer
    """The numbers of a tensor of any type."""
    return tensor.contiguous().view(torch.uint8).numpy()


def _views_of(example: Tensor, view_count: int, show: Callable[[Tensor, Tensor], Inputs]) -> Iterator[Inputs]:
    """Every view of one example (1, ...), in parts that take little memory."""
    for views in torch.split(torch.arange(view_count), max(1, _PROBED_AT_ONCE // example.numel())):
        yield show(example.expand(len(views), *example.shape[1:]), views)
