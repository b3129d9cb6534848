"""The order of batches: by seed and epoch, shared by the ranks, with a place from which a resumed run continues."""

import copy
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kd_lightning.data.batches import Batch

Place = tuple[Tensor, Tensor]  # rows of a batch and their views, both (batch,) int64


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed that depends on every number and is the same on any machine."""
    return zlib.crc32(repr(numbers).encode())


class OrderedLoader(ABC):
    """Iterate over batches of rows in a repeatable order; a subclass reads them.

    In training the order is a permutation drawn from (seed, epoch), and each rank takes every
    `world_size`-th row of the global batch, so that any number of devices sees the same global batches;
    rows of the last batch that would leave the ranks unequal are dropped. In evaluation every row comes
    exactly once over all ranks, without padding.

    Lightning calls `sampler.set_epoch` and, for checkpoints in the middle of an epoch, `state_dict`.

    Args:
        rows: (examples,) int64, which rows are served.
        total: How many rows there are, served or not.
        batch_size: Examples of a global batch, over all ranks, >= 1.
        shuffle: Draw an order per epoch and drop unequal rows (training), or keep the order (evaluation).
        drop_last: In training, drop what is left of an epoch after the last whole batch.
        seed: Seed of order and views.
        view_count: Number of views to draw from, 1 = none but the plain image.
        rank: This process's number, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: If there is nothing to serve or the batch can't be divided.
    """

    def __init__(
        self,
        rows: Tensor,
        total: int,
        *,
        batch_size: int,
        shuffle: bool,
        drop_last: bool = False,
        seed: int = 0,
        view_count: int = 1,
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
        if drop_last and len(rows) < batch_size:
            raise ValueError(
                f"drop_last leaves nothing to train on, got {len(rows)} examples and batches of {batch_size}"
            )
        self._rows = rows
        self._total = total
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._view_count = view_count
        self._rank = rank
        self._world_size = world_size
        self._train_unit = batch_size if drop_last else world_size  # an epoch of training has a multiple of it
        self._epoch = 0
        self._position = 0  # batches of this epoch already served

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        if self._shuffle:
            usable = len(self._rows) - len(self._rows) % self._train_unit
            return -(-usable // self._batch_size)
        # At least one row per rank in each batch: a rank without one would leave the others waiting.
        return min(-(-len(self._rows) // self._batch_size), len(self._rows) // self._world_size)

    @abstractmethod
    def read(self, places: Iterable[Place]) -> Iterator["Batch"]:
        """Read batches, in order.

        Args:
            places: Rows and views of each.
        """

    @property
    def sampler(self) -> Self:
        """Where Lightning looks for `set_epoch`."""
        return self

    @property
    def batch_sampler(self) -> Self:
        """Lightning asks for it wherever there is a `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start the given epoch, unless a restored state is in the middle of it."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches served in it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._epoch, self._position = state["epoch"], state["position"]

    def from_start(self) -> Self:
        """A copy of the loader at its first batch; this loader keeps its place."""
        other = copy.copy(self)
        other.load_state_dict({"epoch": 0, "position": 0})
        return other

    def __iter__(self) -> Iterator["Batch"]:
        """Serve the rest of the epoch; a finished epoch starts again.

        Nothing is read before the first batch is asked for, since Lightning makes the iterator before it
        sets the epoch.
        """
        if not self._shuffle or self._position >= len(self):
            self._position = 0  # an evaluation that was cut short, as Lightning's sanity check is, starts again
        rows, views = self._epoch_order()
        shards = self._train_shards(len(rows)) if self._shuffle else self._evaluation_shards(len(rows))
        for batch in self.read((rows[shard], views[shard]) for shard in shards[self._position :]):
            self._position += 1
            yield batch
        self._position = 0

    def _epoch_order(self) -> tuple[Tensor, Tensor]:
        """Rows and their views in this epoch's order, both (examples,).

        An example's view depends only on (seed, epoch, row): views are drawn for all rows of the file, and
        before the order.
        """
        generator = torch.Generator().manual_seed(derived_seed(self._seed, self._epoch))
        if self._view_count > 1:
            views = torch.randint(self._view_count, (self._total,), generator=generator)[self._rows]
        else:
            views = torch.zeros(len(self._rows), dtype=torch.int64)
        if not self._shuffle:
            return self._rows, views
        order = torch.randperm(len(self._rows), generator=generator)
        return self._rows[order], views[order]

    def _train_shards(self, count: int) -> list[slice]:
        usable = count - count % self._train_unit
        starts = range(0, usable, self._batch_size)
        return [slice(start + self._rank, min(start + self._batch_size, usable), self._world_size) for start in starts]

    def _evaluation_shards(self, count: int) -> list[slice]:
        batches = len(self)
        bounds = [count * number // batches for number in range(batches + 1)]
        return [slice(start + self._rank, end, self._world_size) for start, end in pairwise(bounds)]
