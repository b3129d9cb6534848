"""Measure what decoding once saves: ImageFolderDataModule and torchvision's ImageFolder with a DataLoader.

    python -m scripts.folder_speed                  # on 5,000 pictures of noise, which it writes, 32 x 32 JPEG
    python -m scripts.folder_speed --data_dir DIR   # on DIR/train, with a folder of pictures per class

Both give batches of 128 float pictures, shifted by up to 4 pixels and mirrored at random. All cases run in turns in one
process on one thread; medians are printed. Run nothing else at the same time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import cast

import jsonargparse
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from kd_lightning import CropMirror, ImageFolderDataModule

BATCH, TURNS = 128, 3


def measure(data_dir: str | None = None) -> None:
    """Print pictures per second of each way, and how many times the fastest ImageFolder the data module is.

    Args:
        data_dir: Folder with `train`; by default pictures are made.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = Path(data_dir) if data_dir else write_noise(Path(made))
        started = time.perf_counter()
        data = ImageFolderDataModule(str(root), test_dir=None, cache_dir=None, augment=CropMirror(4), batch_size=BATCH)
        data.setup("fit")
        print(f"decoded once: {len(data.train_rows):,} pictures in {time.perf_counter() - started:.1f} s")
        rates = in_turns(
            {
                "ImageFolder, 0 workers": partial(usual_batches, root / "train", workers=0),
                "ImageFolder, 2 workers": partial(usual_batches, root / "train", workers=2),
                "ImageFolderDataModule": partial(our_batches, data),
            }
        )
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} pictures/s")
    ours = rates.pop("ImageFolderDataModule")
    print(f"{ours / max(rates.values()):.0f} times the fastest ImageFolder")


def usual_batches(folder: Path, workers: int) -> Iterable[Tensor]:
    """Pictures of an epoch, as most people read them."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    pictures = ImageFolder(str(folder), transforms.Compose(steps))
    return (inputs for inputs, _ in DataLoader(pictures, BATCH, shuffle=True, num_workers=workers))


def our_batches(data: ImageFolderDataModule) -> Iterable[Tensor]:
    """Pictures of an epoch, from memory."""
    return (cast(Tensor, data.to_inputs(cast(Tensor, batch.inputs), batch.views)) for batch in data.train_dataloader())


def in_turns(ways: dict[str, Callable[[], Iterable[Tensor]]]) -> dict[str, float]:
    """Pictures per second of each way, the median of some turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, batches in ways.items():
            started = time.perf_counter()
            count = sum(len(inputs) for inputs in batches())
            rates[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in rates.items()}


def write_noise(root: Path, count: int = 5000, classes: int = 10) -> Path:
    """Write pictures of noise, 32 x 32 JPEG files, in a folder per class below `root/train`."""
    noise = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, pixels in enumerate(noise):
        folder = root / "train" / str(number % classes)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.jpg")
    return root


if __name__ == "__main__":
    jsonargparse.auto_cli(measure)
