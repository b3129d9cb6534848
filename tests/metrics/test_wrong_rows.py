"""Which test examples a net gets wrong."""

import torch

from kd_lightning.metrics.wrong_rows import WrongRows


def _of(rows: list[int], wrong: list[bool]) -> list[int] | None:
    metric = WrongRows()
    for row, answer in zip(rows, wrong, strict=True):
        metric.update(torch.tensor([row]), torch.tensor([answer]))
    return metric.compute()


def test_the_wrong_ones_are_sorted() -> None:
    assert _of([7, 3, 5, 1], [True, False, True, True]) == [1, 5, 7]


def test_there_may_be_none() -> None:
    assert _of([7, 3], [False, False]) == []


def test_unknown_rows_are_not_told_apart() -> None:
    assert _of([-1, -1], [True, False]) is None
