"""Files, classes and transforms of data sets, also of their subsets and sums."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kd_lightning.data.user_datasets import class_names_of, files_of, transforms_text
from tests.data.pictures import draw_pictures

PLAIN = TensorDataset(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


class Listed(Dataset[Any]):
    def __init__(self, samples: Any, length: int) -> None:
        self.samples = samples
        self.length = length

    def __len__(self) -> int:
        return self.length


class Flip:
    """A transform without a text of its own."""


def test_files_are_those_of_the_rows(tmp_path: Path) -> None:
    folder = ImageFolder(str(draw_pictures(tmp_path, each=2)))
    files = [Path(name) for name, _ in folder.samples]
    assert len(files) == 6
    assert files_of(folder) == files
    assert files_of(Subset(folder, [4, 1])) == [files[4], files[1]]
    assert files_of(ConcatDataset([folder, Subset(folder, [0])])) == [*files, files[0]]
    assert files_of(Listed([str(file) for file in files], 6)) == files


def test_files_are_unknown_where_the_list_is_something_else(tmp_path: Path) -> None:
    folder = ImageFolder(str(draw_pictures(tmp_path, each=2)))
    assert files_of(PLAIN) is None
    assert files_of(Subset(PLAIN, [0])) is None
    assert files_of(ConcatDataset([folder, PLAIN])) is None
    assert files_of(Listed(folder.samples, 7)) is None
    assert files_of(Listed([torch.zeros(1)] * 6, 6)) is None
    assert files_of(Listed([("nowhere.jpg", 0)], 1)) is None
    assert files_of(Listed([()], 1)) is None


def test_class_names(tmp_path: Path) -> None:
    folder = ImageFolder(str(draw_pictures(tmp_path, each=1)))
    assert class_names_of(Subset(folder, [0])) == ["class0", "class1", "class2"]
    assert class_names_of(ConcatDataset([PLAIN, folder])) == ["class0", "class1", "class2"]
    assert class_names_of(PLAIN) is None


def test_transforms_say_the_same_in_each_process(tmp_path: Path) -> None:
    def text(probability: float) -> str:
        transform = v2.Compose([v2.RandomHorizontalFlip(probability), Flip()])
        return transforms_text(Subset(ImageFolder(str(tmp_path), transform), [0]))

    draw_pictures(tmp_path, each=1)
    assert text(0.5) == text(0.5) != text(0.501)
    assert "0x" not in text(0.5)
