"""CIFARDataModule: small colour pictures of 10 or 100 classes, from the published files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.picture_data import PictureDataModule
from kd_lightning.data.pictures import PictureFormat, bombs_refused
from kd_lightning.data.rows_in_memory import Examples
from kd_lightning.runs.locks import in_turn

_SIDE = 32  # pixels


class CIFARDataModule(PictureDataModule):
    """CIFAR-10 or CIFAR-100 in memory: 50,000 training and 10,000 test pictures of 32 x 32, in colour.

    torchvision reads the files, after a look at their MD5 sums, and downloads them where they are missing. Krizhevsky
    2009, "Learning Multiple Layers of Features from Tiny Images".

    Args:
        dataset: Which data set.
        data_dir: Folder that holds `cifar-10-batches-py` or `cifar-100-python`.
        options: Arguments of `PictureDataModule` and `InMemoryDataModule`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> CIFARDataModule("CIFAR100", augment=CropMirror())
    """

    test_data_arguments = ("dataset",)  # see training.record.NamesTestData

    def __init__(
        self,
        dataset: Literal["CIFAR10", "CIFAR100"] = "CIFAR10",
        data_dir: str = "data",
        **options: Any,  # Any: see PictureDataModule
    ) -> None:
        self.num_classes = int(dataset.removeprefix("CIFAR"))
        super().__init__(**options)
        self.dataset = dataset
        self.data_dir = Path(data_dir)

    def prepare_data(self) -> None:
        """Download the files where they are missing or damaged; runs on one process of a node."""
        if self.images is None:
            with in_turn(self.data_dir):
                self._open(train=True, download=True)

    def read(self) -> tuple[Examples, Examples]:
        """The training pictures, then the test pictures."""
        train, test = (self._open(train=train, download=False) for train in (True, False))
        self.class_names = train.classes
        return _examples(train), _examples(test)

    def read_files(self, files: Sequence[Path]) -> tuple[Tensor, list[str]]:
        """Picture files, stretched to 32 x 32."""
        wanted = PictureFormat(channels=3, size=(_SIDE, _SIDE), background="white")
        with bombs_refused():
            pixels = np.stack([wanted.pixels(file) for file in files])
        return torch.from_numpy(pixels), [f"read as {_SIDE} x {_SIDE}" for _ in files]

    def dataset_name(self) -> str:
        """The data set's name."""
        return self.dataset

    def dataset_identity(self) -> str:
        """The data set's name: its files are the same everywhere."""
        return self.dataset

    def _open(self, *, train: bool, download: bool) -> Any:  # torchvision is untyped
        """The data set as torchvision reads it.

        Raises:
            FileNotFoundError: If the files are missing or damaged and can't be downloaded.
        """
        from torchvision import datasets  # takes a second to import

        published: Any = getattr(datasets, self.dataset)
        try:
            return published(self.data_dir, train=train, download=download)
        except (RuntimeError, OSError) as error:  # of a wrong MD5 sum; of the download
            how = " and can't be downloaded" if download else "; download it with --prepare true"
            raise FileNotFoundError(
                f"{self.dataset} is not whole under {self.data_dir / published.base_folder}{how} ({error}): put its "
                "published files there, or set data_dir to where they are"
            ) from error


def _examples(pictures: Any) -> Examples:  # Any: torchvision's data set, untyped
    pixels = torch.from_numpy(pictures.data).permute(0, 3, 1, 2).contiguous()  # (n, 32, 32, 3) -> (n, 3, 32, 32)
    return Examples(pixels, torch.tensor(pictures.targets))
