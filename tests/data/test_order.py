"""The order that loaders share; tests/data/test_batches.py looks at what is served in it."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from kd_lightning.data.batches import Batch
from kd_lightning.data.order import OrderedLoader, Place


class Rows(OrderedLoader):
    def read(self, places: Iterable[Place]) -> Iterator[Batch]:
        for rows, views in places:
            yield Batch(rows, rows, rows, views)


def _rows(count: int = 11, **order: Any) -> Rows:
    return Rows(torch.arange(count), count, **{"batch_size": 4, "shuffle": True} | order)


@pytest.mark.parametrize("world_size", [1, 2])
def test_drop_last_leaves_whole_batches(world_size: int) -> None:
    sizes = [len(batch.indices) * world_size for batch in _rows(drop_last=True, world_size=world_size)]
    assert sizes == [4, 4]
    assert len(_rows(drop_last=True, world_size=world_size)) == 2
    assert len(_rows()) == 3
    assert sum(len(batch.indices) for batch in _rows(shuffle=False, drop_last=True)) == 11


def test_drop_last_must_leave_something() -> None:
    with pytest.raises(ValueError, match="drop_last leaves nothing to train on, got 3 examples and batches of 4"):
        _rows(3, drop_last=True)
