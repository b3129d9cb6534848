"""A sample is a function of row and view, whatever it draws from; what can't be replayed is refused by name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kd_lightning.data.replay import Replay, SeededLoader, check_replay, own_generators, spread_rows
from tests.data.pictures import draw_pictures, pixels

Make = Callable[[int], Tensor]


class Made(Dataset[Any]):
    """Samples that a function of the row makes."""

    def __init__(self, make: Make, length: int = 70) -> None:
        self.make = make
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.make(row), row % 2


def _draws_from_all(row: int) -> Tensor:
    return torch.tensor([row + random.random(), np.random.rand(), float(torch.rand(())), float(np.random.randint(9))])  # noqa: S311


def _replay(make: Make = _draws_from_all, *, keep_workers: bool = False, **loading: Any) -> Replay:
    return Replay(DataLoader(Made(make), **{"batch_size": 8} | loading), (0, 0), keep_workers=keep_workers)


def test_a_sample_depends_on_row_view_and_seeds_and_leaves_the_generators_alone() -> None:
    replay = _replay()
    rows, views = torch.tensor([3, 5, 3, 3]), torch.tensor([1, 1, 2, 1])
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.rand(1), np.random.rand(), random.random()  # noqa: S311
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = pixels(replay.inputs(rows, views))
    assert before == (torch.rand(1), np.random.rand(), random.random())  # noqa: S311
    assert torch.equal(first, pixels(replay.inputs(rows, views)))
    assert torch.equal(first[0], first[3])
    assert len({tuple(sample.tolist()) for sample in first}) == 3
    other = Replay(replay.source, (1, 0))
    assert not torch.equal(first, pixels(other.inputs(rows, views)))


def test_an_error_in_a_sample_leaves_the_generators_alone_too() -> None:
    state = torch.get_rng_state(), random.getstate()
    with pytest.raises(ZeroDivisionError), own_generators(4):
        _ = torch.rand(1) / (0 // 0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


@pytest.mark.parametrize("keep_workers", [False, True])
def test_workers_make_the_same_samples(keep_workers: bool) -> None:
    rows = torch.arange(70).flip(0)
    alone, helped = _replay(), _replay(num_workers=2, keep_workers=keep_workers)
    for views in (rows % 3, rows % 4):
        assert torch.equal(pixels(alone.inputs(rows, views)), pixels(helped.inputs(rows, views)))
    helped.close()
    batch = next(iter(SeededLoader(helped, batch_size=70, shuffle=True, seed=1, view_count=3)))
    assert torch.equal(pixels(batch.inputs), pixels(alone.inputs(batch.indices, batch.views)))
    assert torch.equal(batch.labels, batch.indices % 2)


@pytest.mark.parametrize(
    "transform",
    [
        v1.Compose(
            [
                v1.RandomCrop(8, padding=2),
                v1.RandomHorizontalFlip(),
                v1.RandomChoice([v1.ColorJitter(0.5), v1.RandomRotation(20)]),
                v1.ToTensor(),
                v1.RandomErasing(),
            ]
        ),
        v2.Compose([v2.AutoAugment(), v2.RandomResizedCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        v2.Compose([v2.RandAugment(), v2.TrivialAugmentWide(), v2.PILToTensor()]),
    ],
)
def test_transforms_of_torchvision_are_replayed(transform: Any, tmp_path: Path) -> None:
    replay = Replay(DataLoader(ImageFolder(str(draw_pictures(tmp_path)), transform), batch_size=8), (0, 0))
    check_replay(replay, 4, "training")
    zeros = torch.zeros(60, dtype=torch.int64)
    first, second = (pixels(replay.inputs(torch.arange(60), zeros + view)) for view in (0, 1))
    assert not torch.equal(first, second)


class OwnGenerator:
    """A transform as some libraries have them."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self, row: int) -> Tensor:
        return torch.tensor([row + self.generator.random()])


def _remembers() -> Make:
    last = [0]

    def make(row: int) -> Tensor:
        last.append(row)
        return torch.tensor([float(last[-2])])

    return make


def _depends_on_the_worker(row: int) -> Tensor:
    return torch.tensor([float(row if get_worker_info() is None or row != 35 else -1)])


@pytest.mark.parametrize(
    ("make", "workers", "row"), [(OwnGenerator(), 0, 0), (_remembers(), 0, 0), (_depends_on_the_worker, 1, 35)]
)
def test_what_comes_out_otherwise_is_refused_by_its_row(make: Make, workers: int, row: int) -> None:
    replay = _replay(make, num_workers=workers)
    with pytest.raises(ValueError, match=rf"can't replay training row {row}: in view 0 it comes"):
        check_replay(replay, 4, "training")


def _padded(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    inputs = torch.nn.utils.rnn.pad_sequence([inputs for inputs, _ in samples], batch_first=True)
    return inputs, torch.tensor([label for _, label in samples])


def _mixed(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    inputs = torch.stack([inputs for inputs, _ in samples])
    return inputs + inputs.mean(dim=0), torch.tensor([label for _, label in samples])


def test_samples_that_depend_on_their_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(1,\) for training row 0 and \(3,\) for row 2; resize"):
        check_replay(_replay(lambda row: torch.ones(row + 1), collate_fn=_padded), 2, "training")
    with pytest.raises(ValueError, match="can't replay training row 0"):
        check_replay(_replay(collate_fn=_mixed), 2, "training")


def test_rounding_is_no_difference_and_nan_is_like_nan() -> None:
    def rounds(row: int) -> Tensor:
        noise = 0.0 if get_worker_info() is None else 1e-6
        return torch.tensor([row + 1 + noise, float("nan")])

    check_replay(_replay(rounds, num_workers=1), 2, "training")


def test_rows_are_spread() -> None:
    assert spread_rows(4, 100).tolist() == [0, 25, 50, 75]
    assert spread_rows(4, 3).tolist() == [0, 1, 2]
    assert spread_rows(4, 0).tolist() == []
