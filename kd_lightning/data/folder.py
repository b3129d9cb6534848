"""ImageFolderDataModule: pictures of any size and colour, in a folder per class."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.batches import TensorLoader
from kd_lightning.data.class_folders import ClassFolders, class_folders, find_pictures
from kd_lightning.data.decoded import Pictures, fill_cache, load_pictures
from kd_lightning.data.picture_data import PictureDataModule
from kd_lightning.data.pictures import PictureFormat, bombs_refused
from kd_lightning.data.rows_in_memory import Examples
from kd_lightning.data.split import rows_outside, stratified_rows


class ImageFolderDataModule(PictureDataModule):
    """Pictures in a folder per class, as torchvision's ImageFolder has them, decoded once into memory.

    A class's number is its folder's place in the sorted names. Pictures are turned upright as their EXIF orientation
    says; of 16 bits the upper 8 count; palettes, CMYK and the like become the wanted colours.

    Args:
        data_dir: Folder of the data set.
        train_dir: Folder of the training pictures in it, with a folder per class.
        test_dir: Folder of the test pictures in it, with folders of the same names; None for none.
        test_size: Training pictures that are held out to test where there is no test_dir, stratified and always the
            same ones.
        size: Side, or height and width, in pixels, to which each picture is stretched; None where all have one size.
        channels: 3 for red, green and blue, 1 for grey.
        background: A colour that shows where a picture is transparent.
        cache_dir: Folder for the decoded pictures, which later runs read; None keeps none.
        limit_gb: Largest size in memory of the decoded pictures of a folder, in 10^9 bytes, > 0.
        options: Arguments of `PictureDataModule` and `InMemoryDataModule`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> ImageFolderDataModule("cifar10", val_size=5000, augment=CropMirror())
    """

    test_data_arguments = ("data_dir", "train_dir", "test_dir", "test_size", "size", "channels", "background")

    def __init__(
        self,
        data_dir: str = "data",
        train_dir: str = "train",
        test_dir: str | None = "test",
        test_size: int = 0,
        size: int | list[int] | None = None,
        channels: Literal[1, 3] = 3,
        background: str = "white",
        cache_dir: str | None = "runs/pictures",
        limit_gb: float = 4.0,
        **options: Any,  # Any: see PictureDataModule
    ) -> None:
        super().__init__(**options)
        sides = [size, size] if isinstance(size, int) else size
        self.format = PictureFormat(channels, None if sides is None else tuple(sides), background)  # type: ignore[arg-type]  # its length is checked
        self.format.check()
        if test_size < 0 or (test_dir is not None and test_size):
            raise ValueError(
                f"give test_dir, or test_size > 0 with test_dir null, got test_dir {test_dir} and test_size {test_size}"
            )
        if not limit_gb > 0:
            raise ValueError(f"limit_gb must be > 0, got {limit_gb}")
        self.data_dir, self.train_dir, self.test_dir = data_dir, train_dir, test_dir
        self.size, self.channels, self.background = size, channels, background
        self.train_folder = Path(data_dir, train_dir)
        self.test_folder = None if test_dir is None else Path(data_dir, test_dir)
        self.test_size = test_size
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.limit_gb = limit_gb
        self._identity = ""  # known when the pictures are read

    def prepare_data(self) -> None:
        """Fill the cache, so that only one process per machine decodes. Does nothing without a cache."""
        if self.images is None and self._parts is None:
            for folders in self._folders():
                fill_cache(self._pictures(folders), self.cache_dir)

    def read(self) -> tuple[Examples, Examples]:
        """The training pictures, then the test pictures."""
        train, *test = self._folders()
        decoded = load_pictures(self._pictures(train), self.cache_dir)
        pixels, labels = torch.from_numpy(decoded.pixels), torch.tensor(train.labels)
        if self.test_size >= len(labels):
            raise ValueError(
                f"test_size must leave something to train on, got {self.test_size} of {len(labels)} images"
            )
        test_rows = stratified_rows(labels, self.test_size, seed=0)
        train_rows = rows_outside(test_rows, len(labels))
        self._identity = hashlib.sha256(decoded.digests[train_rows.numpy()]).hexdigest()
        if not test:
            return Examples(pixels[train_rows], labels[train_rows]), Examples(pixels[test_rows], labels[test_rows])
        others = torch.from_numpy(load_pictures(self._pictures(test[0]), self.cache_dir).pixels)
        if others.shape[1:] != pixels.shape[1:]:
            sides = [" x ".join(map(str, part.shape[2:])) for part in (others, pixels)]
            raise ValueError(f"the test pictures are {sides[0]}, the training pictures {sides[1]}: set size")
        return Examples(pixels, labels), Examples(others, torch.tensor(test[0].labels))

    def read_files(self, files: Sequence[Path]) -> tuple[Tensor, list[str]]:
        """Picture files, read as the training pictures are."""
        with bombs_refused():
            read = [np.array(self.format.pixels(file)) for file in files]
        others = [file for file, pixels in zip(files, read, strict=True) if pixels.shape != read[0].shape]
        if others:
            raise ValueError(f"{others[0]} has another size than {files[0]}: set size, to which all are scaled")
        return torch.from_numpy(np.stack(read)), [f"read as {pixels.shape[1]} x {pixels.shape[2]}" for pixels in read]

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test pictures in order.

        Raises:
            ValueError: If there are none.
        """
        if not len(self.examples("test").labels):
            raise ValueError("there are no test pictures: name their folder with test_dir, or set test_size")
        return super().test_dataloader()

    def dataset_name(self) -> str:
        """The training pictures' folder."""
        return str(self.train_folder)

    def dataset_identity(self) -> str:
        """Hash of the training pictures' files, whatever size and colours they are read in."""
        self.examples("train")  # an error where they are not read yet
        return f"pictures {self._identity}"

    def _folders(self) -> list[ClassFolders]:
        """The training pictures, then the test pictures where they have a folder; their classes are known from here."""
        names = class_folders(self.train_folder, "data_dir and train_dir")
        self.class_names, self.num_classes = names, len(names)
        found = [find_pictures(self.train_folder, names, names)]
        if self.test_folder is not None:
            tested = class_folders(self.test_folder, "test_dir, or null and test_size")
            found.append(find_pictures(self.test_folder, tested, names))
        return found

    def _pictures(self, folders: ClassFolders) -> Pictures:
        return Pictures(folders.root, folders.files, self.format, self.limit_gb)
