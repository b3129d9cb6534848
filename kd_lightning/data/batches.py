"""Batches of whole tensors from memory: order, sharding over ranks, resume state.

Per-sample Python (a Dataset, a collate function) costs more than a small net's whole training step; here a
batch is one indexed read.
"""

import copy
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_lightning.data.inputs import Inputs, checked_inputs, described, tensors_of


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
    """How to make class indices of labels in another form, empty where it can't be told."""
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


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed that depends on every number and is the same on any machine."""
    return zlib.crc32(repr(numbers).encode())


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


class TensorLoader:
    """Iterate over batches that `gather` reads from memory.

    In training the order is a permutation drawn from (seed, epoch), and each rank takes every
    `world_size`-th row of the global batch, so that any number of devices sees the same global batches;
    rows of the last batch that would leave the ranks unequal are dropped. In evaluation every row comes
    exactly once over all ranks, without padding.

    Lightning calls `sampler.set_epoch` and, for checkpoints in the middle of an epoch, `state_dict`.

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
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if batch_size % world_size:
            raise ValueError(
                f"batch_size is the global batch over all devices and must be a multiple of their number, "
                f"got {batch_size} for {world_size} devices"
            )
        if len(rows) < world_size:
            raise ValueError(f"need at least one example per device, got {len(rows)} for {world_size}")
        self._gather = gather
        self._labels = labels
        self._rows = rows
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._view_count = view_count
        self._pin_memory = pin_memory
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._position = 0  # batches of this epoch already served

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        if self._shuffle:
            usable = len(self._rows) - len(self._rows) % self._world_size
            return -(-usable // self._batch_size)
        # At least one row per rank in each batch: a rank without one would leave the others waiting.
        return min(-(-len(self._rows) // self._batch_size), len(self._rows) // self._world_size)

    @property
    def sampler(self) -> "TensorLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    @property
    def batch_sampler(self) -> "TensorLoader":
        """Lightning asks for it wherever there is a `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin the given epoch, unless a restored state stands in the middle of it."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches served in it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._epoch, self._position = state["epoch"], state["position"]

    def from_start(self) -> "TensorLoader":
        """A loader of the same batches that stands before the first one; this one stays where it is."""
        other = copy.copy(self)
        other.load_state_dict({"epoch": 0, "position": 0})
        return other

    def __iter__(self) -> Iterator[Batch]:
        """Serve the rest of the epoch; a finished epoch starts again.

        Nothing is read before the first batch is asked for, since Lightning makes the iterator before it
        sets the epoch.
        """
        if not self._shuffle or self._position >= len(self):
            self._position = 0  # an evaluation that was cut short, as Lightning's sanity check is, starts again
        rows, views = self._epoch_order()
        shards = self._train_shards(len(rows)) if self._shuffle else self._evaluation_shards(len(rows))
        for shard in shards[self._position :]:
            taken = rows[shard]
            self._position += 1
            inputs, labels = self._gather(taken), self._labels.index_select(0, taken)
            parts = (inputs, labels, taken, views[shard])
            yield Batch(*(part if part.is_cuda else part.pin_memory() for part in parts) if self._pin_memory else parts)
        self._position = 0

    def _epoch_order(self) -> tuple[Tensor, Tensor]:
        """Rows and their views in this epoch's order, both (examples,).

        An example's view depends only on (seed, epoch, row): views are drawn for all rows of the file, and
        before the order.
        """
        generator = torch.Generator().manual_seed(derived_seed(self._seed, self._epoch))
        if self._view_count > 1:
            views = torch.randint(self._view_count, (len(self._labels),), generator=generator)[self._rows]
        else:
            views = torch.zeros(len(self._rows), dtype=torch.int64)
        if not self._shuffle:
            return self._rows, views
        order = torch.randperm(len(self._rows), generator=generator)
        return self._rows[order], views[order]

    def _train_shards(self, count: int) -> list[slice]:
        usable = count - count % self._world_size
        starts = range(0, usable, self._batch_size)
        return [slice(start + self._rank, min(start + self._batch_size, usable), self._world_size) for start in starts]

    def _evaluation_shards(self, count: int) -> list[slice]:
        batches = len(self)
        bounds = [count * number // batches for number in range(batches + 1)]
        return [slice(start + self._rank, end, self._world_size) for start, end in pairwise(bounds)]
