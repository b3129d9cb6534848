"""PictureDataModule: data in memory that can also predict picture files."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.batches import TensorLoader
from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.pictures import image_files


class PictureDataModule(InMemoryDataModule):
    """Pictures in memory; others, from files, can be predicted in place of the test pictures.

    Args:
        images: An image file, a folder of such, or a list of both, to predict instead of the test set.
        options: Arguments of `InMemoryDataModule`.

    Raises:
        ValueError: If an argument is out of range.
    """

    unit = "images"

    def __init__(self, images: str | list[str] | None = None, **options: Any) -> None:  # Any: see InMemoryDataModule
        super().__init__(**options)
        self.images = [images] if isinstance(images, str) else images
        self._files: list[Path] = []

    @abstractmethod
    def read_files(self, files: Sequence[Path]) -> tuple[Tensor, list[str]]:
        """Picture files, read as the training pictures are, and per file what was done to it.

        Args:
            files: Picture files.

        Raises:
            ValueError: If one can't be read.
        """

    def setup(self, stage: str) -> None:
        """Find the image files to predict; else read the data set once and cut the split.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            FileNotFoundError: If the data set or an image file is missing.
            ValueError: If a file is damaged or nothing is left to train on.
        """
        if stage == "predict" and self.images is not None:
            self._files = image_files(self.images)
            self.predict_names = [str(file) for file in self._files]
        else:
            super().setup(stage)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the given image files, or of the test images."""
        if self.images is None:
            return self.test_dataloader()
        pixels, notes = self.read_files(self._files)
        for file, note in zip(self._files, notes, strict=True):
            print(f"{file}: {note}")
        unknown = torch.full((len(pixels),), -1)
        return self.loader((pixels, unknown), torch.arange(len(pixels)), self.eval_batch_size)
