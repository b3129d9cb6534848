"""Draws keep the classes' shares and are repeatable."""

import pytest
import torch

from kd_lightning.data.split import rows_outside, stratified_rows


def test_stratified_rows_keep_shares_and_are_repeatable() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    rows = stratified_rows(labels, 20, seed=1)
    assert len(set(rows.tolist())) == 20
    assert sorted(torch.bincount(labels[rows]).tolist()) == [2, 4, 14]
    assert torch.equal(rows, stratified_rows(labels, 20, seed=1))
    assert len(rows_outside(rows, 100)) == 80
    with pytest.raises(ValueError, match="can't draw 101 of 100"):
        stratified_rows(labels, 101, seed=1)
