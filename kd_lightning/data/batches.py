"""Batches, and those of whole tensors from memory.

Per-sample Python (a Dataset, a collate function) costs more than a small net's whole training step; here a
batch is one indexed read.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.inputs import Inputs, checked_inputs, described, tensors_of
from kd_lightning.data.order import OrderedLoader, Place


class Batch(NamedTuple):
    """What a training or evaluation step gets.

    Attributes:
        inputs: (batch, ...) images; uint8 off the loader, float in [0, 1] on the device. Or a tuple or dict of such
            tensors, of which each net picks its own with `Pick`.
        labels: (batch,) int64, class indices; -1 where unknown.
        indices: (batch,) int64, rows of the file that the examples came from.
        views: (batch,) int64, the augmentation that each example got, 0 = none.
    """

    inputs: Inputs
    labels: Tensor
    indices: Tensor
    views: Tensor

    @classmethod
    def of(cls, batch: Any) -> "Batch":  # Any: whatever a user's data module gives
        """Name the parts of a batch: a `Batch` as it is, of others the first two parts, inputs and labels.

        Such a batch's examples have no known place: their indices are -1, their views 0.

        Args:
            batch: A `Batch` or any `(inputs, labels, ...)`; labels may be of any integer type.

        Raises:
            ValueError: If it is something else, or the labels are not class indices, one per example.
        """
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError(
                f"a batch must be (inputs, labels, ...), got {described(batch)}; return such pairs from the data set, "
                "or from the loader's collate_fn"
            )
        inputs, labels = checked_inputs(batch[0]), batch[1]
        examples = len(tensors_of(inputs)[0])
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != (examples,):
            raise ValueError(
                f"a batch's labels must be class indices, integers of shape ({examples},), got {described(labels)}"
                f"{_way_to_indices(labels, examples=examples)}"
            )
        if labels.dtype != torch.int64:
            labels = labels.long()
        if isinstance(batch, cls):
            same = inputs is batch.inputs and labels is batch.labels
            return batch if same else batch._replace(inputs=inputs, labels=labels)
        return cls(inputs, labels, labels.new_full((len(labels),), -1), labels.new_zeros(len(labels)))


def _way_to_indices(labels: object, *, examples: int) -> str:
    """Advice how to turn labels of another form into class indices; empty if the form is unknown."""
    if not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != examples:
        return ""
    match tuple(labels.shape[1:]):
        case ():
            return "; use labels.long()"
        case (1,):
            return "; use labels.squeeze(1).long()"
        case (_,):
            return "; of one-hot labels use labels.argmax(dim=1)"
        case _:
            return ""


class TensorRows:
    """Reads rows of a tensor: a `gather` that can be copied, pickled and sent to another process.

    Args:
        tensor: (all rows, ...).
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """The given rows, (batch, ...), on the tensor's device.

        Args:
            rows: (batch,) int64.
        """
        # a fifteenth of the time of tensor[rows]
        return self.tensor.index_select(0, rows.to(self.tensor.device, non_blocking=True))


class TensorLoader(OrderedLoader):
    """Batches that `gather` reads from memory, in the order of an `OrderedLoader`.

    Args:
        gather: Maps rows (batch,) int64 to inputs (batch, ...); a lambda keeps the loader from being pickled.
        labels: (all rows,) int64.
        rows: (examples,) int64, which rows are served.
        batch_size: Examples of a global batch, over all ranks, >= 1.
        shuffle: Draw an order per epoch and drop unequal rows (training), or keep the order (evaluation).
        seed: Seed of order and views.
        view_count: Number of views to draw from, 1 = none but the plain image.
        pin_memory: Serve batches in page-locked memory, from which a GPU copies without waiting.
        rank: This process's number, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: If there is nothing to serve or the batch can't be divided.
    """

    def __init__(
        self,
        gather: Callable[[Tensor], Tensor],
        labels: Tensor,
        rows: Tensor,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        view_count: int = 1,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            rows,
            len(labels),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            view_count=view_count,
            rank=rank,
            world_size=world_size,
        )
        self._gather = gather
        self._labels = labels
        self._pin_memory = pin_memory

    def read(self, places: Iterable[Place]) -> Iterator[Batch]:
        """Read batches, in order.

        Args:
            places: Rows and views of each.
        """
        for rows, views in places:
            parts = (self._gather(rows), self._labels.index_select(0, rows), rows, views)
            yield Batch(*(part if part.is_cuda else part.pin_memory() for part in parts) if self._pin_memory else parts)


def batch_on_device(batch: Any, data: LightningDataModule, device: torch.device) -> Batch:  # Any: see Batch.of
    """A batch as a trainer hands it to a module: after the data module's hooks of its transfer.

    Args:
        batch: As it comes off the loader.
        data: Where it comes from.
        device: Where it goes to.
    """
    batch = data.transfer_batch_to_device(data.on_before_batch_transfer(batch, 0), device, 0)
    return Batch.of(data.on_after_batch_transfer(batch, 0))
