"""Samples of a user's data set that can be made again: all random generators are seeded before each one."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, joined, tensors_of
from kd_lightning.data.order import OrderedLoader, Place, derived_seed

_CHECKED_ROWS = 32
# Worker processes use one thread, this process perhaps several, which can round differently.
_TOLERANCE = 1e-4


@contextmanager
def own_generators(seed: int | None = None) -> Iterator[None]:
    """Leave the random generators of torch, numpy and `random` as they were, whatever is drawn inside.

    Args:
        seed: What they are seeded with first; None leaves that to the caller.
    """
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        if seed is not None:
            _seed_generators(seed)
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _seed_generators(seed: int) -> None:
    """Seed all three, which takes 13 us for each sample, 8 of them in `random`; reading a small JPEG takes 200."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 150 times as long
    np.random.seed(seed)
    random.seed(seed)


class SeededSamples(Dataset[Any]):
    """The samples of a data set, each a function of its row and view; pickled where it goes to worker processes.

    Args:
        dataset: Map-style; its `__getitem__` makes a sample.
        seeds: What the samples' seeds depend on in addition to row and view.
    """

    def __init__(self, dataset: Dataset[Any], seeds: tuple[int, ...]) -> None:
        self.dataset = dataset
        self.seeds = seeds

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[Any]:
        """Make samples.

        Args:
            places: Row and view of each.
        """
        # Keeping and restoring the generators takes 0.15 ms; in a worker process nobody else draws from them.
        with own_generators() if get_worker_info() is None else nullcontext():
            return [self._sample(row, view) for row, view in places]

    def _sample(self, row: int, view: int) -> Any:  # Any: the user's
        _seed_generators(derived_seed(*self.seeds, row, view))
        return self.dataset[row]


class Replay:
    """Makes batches of a user's data set by row and view, as the user's loader would.

    Args:
        source: The user's loader, whose data set, collate function and worker processes are used.
        seeds: What the samples' seeds depend on in addition to row and view.
        first_row: Added to the rows in batches.
        keep_workers: Keep worker processes between passes until `close`, also if the user's loader does not.
    """

    def __init__(
        self, source: DataLoader[Any], seeds: tuple[int, ...], first_row: int = 0, *, keep_workers: bool = False
    ) -> None:
        self.source = source
        self.seeds = seeds
        self.first_row = first_row
        self._keep_workers = keep_workers
        self._samples = SeededSamples(source.dataset, seeds)
        self._queue = _Queue()

    def __len__(self) -> int:
        """Examples of the data set."""
        return len(self.source.dataset)  # type: ignore[arg-type]  # map-style: see user_loader

    def fresh(self) -> "Replay":
        """A copy with worker processes of its own, as many as the user's loader has."""
        return Replay(self.source, self.seeds, self.first_row)

    def close(self) -> None:
        """End worker processes that are kept; they start again where they are needed."""
        self.__dict__.pop("_loader", None)

    def read(self, places: Iterable[Place]) -> Iterator[Batch]:
        """Make batches, in worker processes where the user's loader has some; one pass at a time.

        Args:
            places: Rows and views of each.

        Raises:
            ValueError: If the collate function gives something else than an input and a label for each sample.
        """
        places = list(places)
        self._queue.batches = [_pairs(*place) for place in places]
        for place, collated in zip(places, self._loader, strict=True):
            yield self._batch(collated, *place)

    def at_once(self, rows: Tensor, views: Tensor) -> Batch:
        """Make a batch in this process; arguments and errors as in `inputs`."""
        return self._batch(self.source.collate_fn(self._samples.__getitems__(_pairs(rows, views))), rows, views)

    def inputs(self, rows: Tensor, views: Tensor) -> Inputs:
        """What the nets get of these rows in these views, (batch, ...); many of them in worker processes.

        Args:
            rows: (batch,) int64.
            views: (batch,) int64.
        """
        size = self.source.batch_size or 1
        if self.source.num_workers == 0 or len(rows) <= size:
            return self.at_once(rows, views).inputs
        return joined(list(self.inputs_in_batches(rows, views)))

    def inputs_in_batches(self, rows: Tensor, views: Tensor) -> Iterator[Inputs]:
        """As `inputs`, in batches of the user's size, for what does not fit into memory together."""
        for batch in self.read(_places(rows, views, self.source.batch_size or 1)):
            yield batch.inputs

    def _batch(self, collated: object, rows: Tensor, views: Tensor) -> Batch:
        batch = Batch.of(collated)
        if len(batch.labels) != len(rows):
            raise ValueError(
                f"collate_fn must keep every sample, got {len(batch.labels)} of {len(rows)}; "
                "leave damaged ones out of the data set"
            )
        return batch._replace(indices=rows + self.first_row, views=views)

    @cached_property
    def _loader(self) -> DataLoader[Any]:
        """Kept, since persistent workers belong to it."""
        source = self.source
        persistent = source.persistent_workers or (self._keep_workers and source.num_workers > 0)
        return DataLoader(
            self._samples,
            batch_sampler=self._queue,
            num_workers=source.num_workers,
            collate_fn=source.collate_fn,
            pin_memory=source.pin_memory,
            timeout=source.timeout,
            worker_init_fn=source.worker_init_fn,
            multiprocessing_context=source.multiprocessing_context,
            generator=torch.Generator(),  # else each pass draws from the global one
            prefetch_factor=source.prefetch_factor,
            persistent_workers=persistent,
        )


class _Queue:
    """The batches that a loader makes next; persistent workers outlive one pass."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


def _places(rows: Tensor, views: Tensor, size: int) -> Iterator[Place]:
    """Cut rows and their views into batches of a size."""
    return zip(torch.split(rows, size), torch.split(views, size), strict=True)


def _pairs(rows: Tensor, views: Tensor) -> list[tuple[int, int]]:
    return list(zip(rows.tolist(), views.tolist(), strict=True))


class SeededLoader(OrderedLoader):
    """Batches of a `Replay`, in the order of an `OrderedLoader`.

    Args:
        replay: Makes such batches; its worker processes end when this loader's start.
        order: The arguments of `OrderedLoader`; it has the same errors.
    """

    def __init__(self, replay: Replay, **order: Any) -> None:  # Any: each has a type of its own
        super().__init__(torch.arange(len(replay)), len(replay), **order)
        self._others = replay
        self.replay = replay.fresh()

    def read(self, places: Iterable[Place]) -> Iterator[Batch]:
        """Make batches; argument and errors as in `Replay.read`."""
        self._others.close()
        return self.replay.read(places)

    def close(self) -> None:
        """End worker processes; without this call torch takes 5 s for each persistent worker."""
        self.replay.close()

    def from_start(self) -> Self:
        """A copy of the loader at its first batch; this loader keeps its place."""
        other = super().from_start()
        other.replay = self.replay.fresh()  # a pass of one must not disturb a pass of the other
        return other


def spread_rows(count: int, total: int) -> Tensor:
    """Up to `count` rows of `total`, (rows,) int64, evenly spread."""
    return torch.arange(min(count, total)) * total // max(1, min(count, total))


def check_replay(replay: Replay, view_count: int, part: str) -> None:
    """Make some samples twice: one by one, then together, in another order and in the user's worker processes.

    Args:
        replay: Makes them.
        view_count: How many views each row has.
        part: What they do, such as training, for the message.

    Raises:
        ValueError: If a sample differs the second time, or from others in shape.
    """
    rows = spread_rows(_CHECKED_ROWS, len(replay))
    views = torch.arange(len(rows)) % view_count
    single = [_sample(replay.at_once(row, view).inputs, 0) for row, view in _places(rows, views, 1)]
    for row, sample in zip(rows.tolist(), single, strict=True):
        for tensor, expected in zip(sample, single[0], strict=True):
            if tensor.shape != expected.shape:
                raise ValueError(
                    f"SeededViews needs inputs of one shape, got {tuple(expected.shape)} for {part} row 0 and "
                    f"{tuple(tensor.shape)} for row {row}; resize, cut or pad them in the data set"
                )
    backwards = _places(rows.flip(0), views.flip(0), -(-len(rows) // 2))
    together = [_sample(batch.inputs, place) for batch in replay.read(backwards) for place in range(len(batch.labels))]
    for row, view, first, again in zip(rows.tolist(), views.tolist(), single, reversed(together), strict=True):
        if not all(map(_alike, first, again)):
            raise ValueError(
                f"SeededViews can't replay {part} row {row}: in view {view} it comes out otherwise the second time; "
                "its transform must draw from the generators of torch, numpy.random or random, which are seeded for "
                "each sample, not from a generator of its own, the time, what came before, or the rest of the batch"
            )


def _sample(inputs: Inputs, place: int) -> list[Tensor]:
    """The tensors of one example of a batch."""
    return [tensor[place] for tensor in tensors_of(inputs)]


def _alike(first: Tensor, again: Tensor) -> bool:
    if first.shape != again.shape or not first.is_floating_point():
        return torch.equal(first, again)
    scale = float(first.abs().nan_to_num().max()) if first.numel() else 0.0
    return torch.allclose(first, again, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)
