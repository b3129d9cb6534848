"""The embedded digits, stratified draws, and damaged or missing files."""

from pathlib import Path

import pytest
import torch

from kd_lightning.data import MNISTDataModule
from kd_lightning.datasets import download_digits, read_digits, rows_outside, stratified_rows


def test_mnist5k_is_split_by_class() -> None:
    train, test = read_digits("mnist5k", "unused")
    assert train.images.shape == (4000, 1, 28, 28)
    assert train.images.dtype == torch.uint8
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10


def test_stratified_rows_keep_shares_and_are_repeatable() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    rows = stratified_rows(labels, 20, seed=1)
    assert len(set(rows.tolist())) == 20
    assert sorted(torch.bincount(labels[rows]).tolist()) == [2, 4, 14]
    assert torch.equal(rows, stratified_rows(labels, 20, seed=1))
    assert len(rows_outside(rows, 100)) == 80
    with pytest.raises(ValueError, match="can't draw 101 of 100"):
        stratified_rows(labels, 101, seed=1)


def test_transfer_set_options() -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=400, drop_classes=[3], train_fraction=0.1)
    data.setup("fit")
    labels = read_digits("mnist5k", "unused")[0].labels
    assert torch.bincount(labels[data.train_rows], minlength=10).tolist() == [36, 36, 36, 0, 36, 36, 36, 36, 36, 36]
    assert not torch.isin(data.train_rows, data.val_rows).any()


def test_damaged_idx_file(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        header = bytes([0, 0, 8, 3 if "images" in part else 1]) + (60000).to_bytes(4, "big")
        (raw / f"{part}-ubyte").write_bytes(header + bytes([0, 0, 0, 28]) * 2 + bytes(1000))
    with pytest.raises(ValueError, match=r"a MNIST file under .* is damaged"):
        download_digits("MNIST", tmp_path)
    with pytest.raises(ValueError, match=r"a MNIST file under .* is damaged"):
        read_digits("MNIST", tmp_path)
