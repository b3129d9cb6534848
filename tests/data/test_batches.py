"""Every row once, one order per (seed, epoch), the same global batches on any number of ranks, resume."""

import re
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from kd_lightning.data.batches import Batch, TensorLoader, batch_on_device
from kd_lightning.data.inputs import tensors_of

INPUTS = torch.arange(103).unsqueeze(1)
LABELS = torch.arange(103) % 10


def _loader(
    rank: int = 0, world_size: int = 1, *, shuffle: bool = True, seed: int = 3, batch: int = 16
) -> TensorLoader:
    return TensorLoader(
        INPUTS.__getitem__,
        LABELS,
        torch.arange(103),
        batch_size=batch,
        shuffle=shuffle,
        seed=seed,
        view_count=25,
        rank=rank,
        world_size=world_size,
    )


def _indices(batches: list[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def test_every_row_once_in_one_order_per_seed_and_epoch() -> None:
    loader = _loader()
    first, again = list(loader), list(loader)
    assert sorted(_indices(first)) == list(range(103))
    assert _indices(first) == _indices(again) == _indices(list(_loader()))
    assert len(first) == len(loader) == 7
    loader.set_epoch(1)
    assert _indices(list(loader)) != _indices(first)
    assert _indices(list(_loader(seed=4))) != _indices(first)
    for batch in first:
        assert torch.equal(tensors_of(batch.inputs)[0].flatten(), batch.indices)
        assert torch.equal(batch.labels, batch.indices % 10)


@pytest.mark.parametrize("epoch", [0, 1])
def test_two_ranks_share_the_global_batches(epoch: int) -> None:
    whole, ranks = _loader(), [_loader(rank, 2) for rank in (0, 1)]
    for loader in (whole, *ranks):
        loader.set_epoch(epoch)
    shares = [list(loader) for loader in ranks]
    for position, batch in enumerate(whole):
        kept = len(batch.indices) - len(batch.indices) % 2
        together = torch.stack([share[position].indices for share in shares], dim=1).flatten()
        assert torch.equal(together, batch.indices[:kept])
    assert sum(len(_indices(share)) for share in shares) == 102


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch", [6, 48, 102, 204])
def test_evaluation_drops_and_repeats_nothing(world_size: int, batch: int) -> None:
    loaders = [_loader(rank, world_size, shuffle=False, batch=batch) for rank in range(world_size)]
    shares = [list(loader) for loader in loaders]
    assert sorted(index for share in shares for index in _indices(share)) == list(range(103))
    assert {len(share) for share in shares} == {len(loaders[0])}
    assert all(len(part.indices) > 0 for share in shares for part in share)


def test_resumes_in_the_middle_of_an_epoch() -> None:
    loader = _loader()
    loader.set_epoch(2)
    whole = list(loader)
    loader.set_epoch(2)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    resumed = _loader()
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(2)
    rest = list(resumed)
    assert _indices(rest) == _indices(whole[3:])
    assert torch.equal(rest[0].views, whole[3].views)


def test_view_depends_on_seed_epoch_and_row_alone() -> None:
    subset = TensorLoader(
        INPUTS.__getitem__, LABELS, torch.arange(50, 80), batch_size=7, shuffle=True, seed=3, view_count=25
    )
    views = {int(i): int(v) for batch in _loader() for i, v in zip(batch.indices, batch.views, strict=True)}
    for batch in subset:
        assert [views[int(i)] for i in batch.indices] == batch.views.tolist()
    assert len(set(views.values())) > 15


def test_an_evaluation_cut_short_starts_anew() -> None:
    loader = _loader(shuffle=False)
    next(iter(loader))
    assert sorted(_indices(list(loader))) == list(range(103))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        _loader(batch=0)
    with pytest.raises(ValueError, match="multiple of their number, got 15 for 2"):
        _loader(0, 2, batch=15)
    with pytest.raises(ValueError, match="at least one example per device"):
        TensorLoader(INPUTS.__getitem__, LABELS, torch.arange(0), batch_size=1, shuffle=True)


def test_a_users_own_pair_becomes_a_batch() -> None:
    images, labels = torch.rand(3, 1, 2, 2), torch.tensor([1, 0, 2])
    for kind in (torch.int64, torch.int32, torch.uint8):
        for pair in ((images, labels.to(kind)), [images, labels.to(kind), torch.rand(3)]):
            batch = Batch.of(pair)
            assert batch.labels.dtype == torch.int64
            assert batch.labels.tolist() == [1, 0, 2]
            assert batch.indices.tolist() == [-1] * 3
            assert batch.inputs is images
    assert Batch.of(batch) is batch
    assert Batch.of(batch._replace(labels=labels.int())).labels.dtype == torch.int64


IMAGES, CLASSES = torch.rand(3, 1, 2, 2), torch.tensor([1, 0, 2])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": IMAGES, "label": CLASSES}, "must be (inputs, labels, ...), got a dict with image, label; return"),
        (IMAGES, "must be (inputs, labels, ...), got a tensor of shape (3, 1, 2, 2) and type float32"),
        ([IMAGES], "must be (inputs, labels, ...), got a list of 1"),
        (({"x": 1}, CLASSES), "inputs must be a tensor (batch, ...), or a tuple or dict of such"),
        ((IMAGES, CLASSES.float()), "got a tensor of shape (3,) and type float32; use labels.long()"),
        ((IMAGES, CLASSES[:, None]), "(3,), got a tensor of shape (3, 1) and type int64; use labels.squeeze(1)"),
        ((IMAGES, torch.eye(3)), "(3, 3) and type float32; of one-hot labels use labels.argmax(dim=1)"),
        ((IMAGES, CLASSES[:2]), "integers of shape (3,), got a tensor of shape (2,) and type int64"),
        ((IMAGES, ("1", "0", "2")), "integers of shape (3,), got a tuple of 3"),
        ((CLASSES, IMAGES), "labels must be class indices, integers of shape (3,), got a tensor of shape (3, 1, 2, 2)"),
        (Batch(IMAGES, CLASSES.float(), CLASSES, CLASSES), "use labels.long()"),
    ],
)
def test_what_is_no_batch(batch: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Batch.of(batch)


class Packed(LightningDataModule):
    """Its batches are packed, and unpacked on their way to the device."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return tuple(part.to(device) for part in batch["packed"])


def test_a_batch_goes_through_all_hooks_of_its_transfer() -> None:
    batch = batch_on_device({"packed": [INPUTS, LABELS]}, Packed(), torch.device("cpu"))
    assert batch.labels.equal(LABELS)
