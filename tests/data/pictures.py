"""A user's own data module: picture files in a folder per class, with the usual random transforms."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kd_lightning.data.inputs import Inputs

TRANSFORM = [
    v2.RandomCrop(8, padding=2),
    v2.RandomHorizontalFlip(),
    v2.ColorJitter(0.3, 0.3, 0.3),
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.RandomErasing(p=0.5),
]


def draw_pictures(folder: Path, each: int = 20, side: int = 8) -> Path:
    """Write noisy JPEG files of three classes, a colour each, and return the folder."""
    random = np.random.default_rng(0)
    for label in range(3):
        for number in range(each):
            pixels = random.integers(0, 80, (side, side, 3), dtype=np.uint8)
            pixels[..., label] += 150
            file = folder / f"class{label}" / f"{number:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file, quality=95)
    return folder


class Pictures(LightningDataModule):
    """As a user writes it.

    Args:
        folder: Holds `train` and `val`, each with a folder per class.
        workers: Worker processes of each loader.
    """

    def __init__(self, folder: str = "pictures", batch_size: int = 16, workers: int = 0, **loading: Any) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.loading = {"batch_size": batch_size, "num_workers": workers, **loading}

    def prepare_data(self) -> None:
        if not self.folder.exists():
            draw_pictures(self.folder / "train")
            draw_pictures(self.folder / "val", each=9)

    def setup(self, stage: str) -> None:
        plain = v2.Compose(TRANSFORM[3:5])
        self.train = ImageFolder(str(self.folder / "train"), v2.Compose(TRANSFORM))
        self.val = ImageFolder(str(self.folder / "val"), plain)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, shuffle=True, **self.loading)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, **self.loading)

    test_dataloader = predict_dataloader = val_dataloader


def pixels(inputs: Inputs) -> Tensor:
    """The one tensor that a batch of pictures is."""
    assert isinstance(inputs, Tensor)
    return inputs
