"""CIFAR's published files: what is read, predicted and refused."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import functional

from kd_lightning import CIFARDataModule
from tests.data.cifar_files import write_cifar
from tests.data.pictures import pixels


@pytest.mark.parametrize("dataset", ["CIFAR10", "CIFAR100"])
def test_pictures_and_classes_are_those_of_torchvision(
    dataset: Literal["CIFAR10", "CIFAR100"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, dataset, monkeypatch)
    data = CIFARDataModule(dataset, str(tmp_path), val_size=100)
    data.prepare_data()
    data.setup("fit")
    theirs = getattr(datasets, dataset)(tmp_path, train=False)
    inputs, labels = data.examples("test")
    assert labels.tolist() == theirs.targets
    assert torch.equal(inputs, torch.stack([functional.pil_to_tensor(picture) for picture, _ in theirs]))
    assert data.num_classes == int(dataset.removeprefix("CIFAR"))
    assert data.class_names == theirs.classes
    assert data.describe() == f"{dataset}, 100 training and 100 validation images"


def test_files_that_are_missing_or_changed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar(tmp_path, "CIFAR10", monkeypatch)
    (folder / "test").write_bytes(b"other")
    with pytest.raises(FileNotFoundError, match=f"CIFAR10 is not whole under {folder}; download it with --prepare"):
        CIFARDataModule(data_dir=str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match=f"under {folder} and can't be downloaded .*refused.*: put its publish"):
        CIFARDataModule(data_dir=str(tmp_path)).prepare_data()
    with pytest.raises(FileNotFoundError, match="CIFAR100 is not whole under nowhere/cifar-100-python; download it"):
        CIFARDataModule("CIFAR100", data_dir="nowhere").setup("fit")


def test_pictures_of_any_size_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((40, 60, 3), [10, 20, 30], dtype=np.uint8)).save(tmp_path / "a.png")
    data = CIFARDataModule(images=str(tmp_path))
    data.prepare_data()  # needs no data set
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    inputs = pixels(batch.inputs)
    assert inputs.shape == (1, 3, 32, 32)
    assert inputs[0, :, 0, 0].tolist() == [10, 20, 30]
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}: read as 32 x 32\n"
