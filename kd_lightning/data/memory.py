"""Data that fits into memory: InMemoryDataModule, the base of a data set of your own."""

import inspect
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.augment import Augment
from kd_lightning.data.batches import TensorLoader, TensorRows
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.rows_in_memory import Examples, Part, ViewsInMemory
from kd_lightning.runs.texts import counted


class InMemoryDataModule(ViewsInMemory):
    """Data that fits into memory, in whole-tensor batches. A data set of your own defines `read` and `num_classes`.

    The training examples are cut into validation rows and the rest; the transfer set (what a net trains on) is the
    rest, narrowed by `keep_classes`, `drop_classes` and `train_fraction`. The test examples are only used to test.

    Args:
        batch_size: Training examples per step, over all devices, >= 1.
        eval_batch_size: Examples per evaluation step, over all devices, >= 1.
        val_size: Training examples held out for validation, stratified; 0 for none.
        split_seed: Seed of the validation split, of `train_fraction` and of `label_fraction`.
        augment: Transforms of the training examples: Jitter, Affine or another Augment, or Mixtures.
        keep_classes: Train on these classes only.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the training examples that are used, stratified, in (0, 1].
        label_fraction: Share of those that keep their label, stratified, in (0, 1]; the others have a soft loss only.
        seed: Seed of the order and of the views; by default that of seed_everything.
        device_resident: Keep all examples on the GPU, where a batch is then cut without a transfer.

    Attributes:
        num_classes: Number of classes. A subclass must set it, in `read` at the latest.
        class_names: Name of each class; None where their numbers are their names.
        predict_names: Name of each predicted example; None where they have none.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> class Waves(InMemoryDataModule):
        ...     unit, num_classes = "waves", 3
        ...
        ...     def read(self):
        ...         return (train_inputs, train_labels), (test_inputs, test_labels)
    """

    num_classes: int = 0
    class_names: Sequence[str] | None = None
    predict_names: Sequence[str] | None = None

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int = 0,
        split_seed: int = 0,
        augment: Augment | Mixtures | None = None,
        keep_classes: list[int] | None = None,
        drop_classes: list[int] | None = None,
        train_fraction: float = 1.0,
        seed: int | None = None,
        device_resident: bool = False,
        label_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.augment = augment
        self.keep_classes = keep_classes
        self.drop_classes = drop_classes
        self.train_fraction = train_fraction
        self.label_fraction = label_fraction
        self.seed = seed
        self.device_resident = device_resident
        if self.num_classes:  # else `read` will tell
            _check_classes(self)
        self._parts: tuple[Examples, Examples] | None = None
        self._place: dict[str, Any] | None = None  # where a resumed run's training loader goes on

    @abstractmethod
    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Inputs and labels of the training examples, then of the test examples; called once.

        Inputs are (examples, ...) tensors of any type, such as uint8 images; labels (examples,) int64, class numbers,
        -1 where unknown: such an example trains with a soft loss only, and never validates.
        Download in `prepare_data`, not here.
        """

    def setup(self, stage: str) -> None:
        """Read the examples once and cut the split.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If `read` gives something else than it should, or nothing is left to train on.
        """
        self._place = None  # of an earlier fit
        if self._parts is None:
            train, test = self.read()
            _check_classes(self)
            self._parts = (
                _checked(*train, "training", self.num_classes),
                _checked(*test, "test", self.num_classes),
            )
        if stage == "fit" and len(self.train_rows) == 0:
            raise ValueError(
                f"the transfer set is empty: nothing is left with val_size={self.val_size}, "
                f"keep_classes={self.keep_classes}, drop_classes={self.drop_classes}, "
                f"train_fraction={self.train_fraction}"
            )

    def examples(self, part: Part) -> Examples:
        """All training or test examples, in their order.

        Raises:
            RuntimeError: If they are not read yet.
        """
        if self._parts is None:
            raise RuntimeError("the data is not read yet; call setup first")
        return self._parts[0 if part == "train" else 1]

    @property
    def test_data_arguments(self) -> Sequence[str]:
        """The arguments that only the subclass has. They may change the test set; those of this class don't."""
        return _own_arguments(type(self))

    def describe(self) -> str:
        """What trains and validates, for people."""
        views = f", {type(self.augment).__name__} with {counted(self.view_count, 'view')}" if self.augment else ""
        labelled = int((self.train_labels[self.train_rows] >= 0).sum())
        few = "" if labelled == len(self.train_rows) else f" ({labelled:,} with a label)"
        counts = f"{len(self.train_rows):,} training{few} and {len(self.val_rows):,} validation {self.unit}"
        return f"{self.dataset_name()}, {counts}{views}"

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the transfer set; the first loader of a resumed run starts at the run's last place."""
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]  # set by Lightning's connector
            raise ValueError("overfit_batches is not supported here; set train_fraction to train on few examples")
        seen = self.examples("train")._replace(labels=self.train_labels)
        loader = self.loader(seen, self.train_rows, self.batch_size, shuffle=True)
        if self._place is not None:
            loader.load_state_dict(self._place)
            self._place = None
        return loader

    def val_dataloader(self) -> TensorLoader | list[TensorLoader]:
        """Batches of the validation rows in order; none where there are none."""
        rows = self.val_rows
        return self.loader(self.examples("train"), rows, self.eval_batch_size) if len(rows) else []

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test examples in order."""
        test = self.examples("test")
        return self.loader(test, torch.arange(len(test.labels)), self.eval_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the test examples."""
        return self.test_dataloader()

    def loader(
        self, examples: tuple[Tensor, Tensor], rows: Tensor, batch_size: int, *, shuffle: bool = False
    ) -> TensorLoader:
        """Batches of some rows, for this process and its device.

        Args:
            examples: Inputs and labels, as `read` gives them.
            rows: (rows,) int64, which of them are served.
            batch_size: Examples per step, over all devices.
            shuffle: Whether they train: in another order each epoch, augmented.
        """
        inputs, labels = examples
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        return TensorLoader(
            TensorRows(inputs.to(device) if self.device_resident else inputs),
            labels,
            rows,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed,
            view_count=self.view_count if shuffle else 1,
            pin_memory=device.type == "cuda",
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """The training loader's place in the data.

        Lightning saves it too, but loses it if the loader is made before the checkpoint is read; see LoaderPlace.
        """
        loader = None if self.trainer is None else self.trainer.train_dataloader
        return {"train_loader": loader.state_dict()} if isinstance(loader, TensorLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader continue from a `state_dict`. One of version 0.1.0 holds no place."""
        self._place = state_dict.get("train_loader")


def _own_arguments(data: type[InMemoryDataModule]) -> Sequence[str]:
    inherited = inspect.signature(InMemoryDataModule).parameters
    own = inspect.signature(data).parameters.values()
    return [each.name for each in own if each.name not in inherited and each.kind is not inspect.Parameter.VAR_KEYWORD]


def _check_classes(data: InMemoryDataModule) -> None:
    name, count, names = type(data).__name__, data.num_classes, data.class_names
    if count < 1:
        raise ValueError(f"{name}.num_classes must be >= 1, got {count}; set it in the class")
    if names is not None and len(names) != count:
        raise ValueError(f"{name}.class_names must hold a name for each of {count} classes, got {len(names)}")
    data.split.check(count)


def _checked(inputs: Tensor, labels: Tensor, part: str, num_classes: int) -> Examples:
    if len(inputs) != len(labels) or labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"read must give a class number for each of the {part} inputs, got inputs {tuple(inputs.shape)} and "
            f"labels {tuple(labels.shape)} of {labels.dtype}"
        )
    if len(labels) and not (int(labels.min()) >= -1 and int(labels.max()) < num_classes):
        raise ValueError(
            f"{part} labels must be from 0 to {num_classes - 1}, or -1 where unknown, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return Examples(inputs, labels.long())
