"""Every row once, one order per (seed, epoch), the same global batches on any number of ranks, resume."""

import pytest
import torch

from kd_lightning.data.batches import Batch, TensorLoader

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
        assert torch.equal(batch.inputs.flatten(), batch.indices)
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
