"""What can be read from a user's loaders and data sets: settings, files, classes, transforms."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

_TRANSFORM_NAMES = ("transform", "transforms", "target_transform")


def user_loader(given: object, name: str, *, training: bool) -> DataLoader[Any]:
    """A loader whose samples can be made again one by one.

    Args:
        given: What the user's data module gave.
        name: The method that gave it, for messages.
        training: Whether it must shuffle; else it must keep the order.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    if not isinstance(given, DataLoader) or type(given).__iter__ is not DataLoader.__iter__:
        what = f"{len(given)} loaders" if isinstance(given, list | tuple | Mapping) else f"a {type(given).__name__}"
        raise ValueError(f"SeededViews needs one DataLoader of torch.utils.data from {name}, got {what}")
    dataset = given.dataset
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ValueError(
            f"SeededViews needs a data set with __getitem__ and __len__ from {name}, got {type(dataset).__name__}: "
            "only a sample that has a row can be made again"
        )
    if given.batch_size is None or type(given.batch_sampler) is not BatchSampler:
        raise ValueError(
            f"SeededViews orders the examples itself, so {name} can't have a batch_sampler of its own, "
            f"got {type(given.batch_sampler).__name__}; give the loader batch_size instead"
        )
    if not _is_plain(given, training=training):
        raise ValueError(
            f"SeededViews orders the examples itself and shares them among the devices, so {name} can't have a sampler "
            f"of its own, got {type(given.sampler).__name__}; give the loader shuffle={training} and no sampler"
        )
    if given.drop_last and not training:
        raise ValueError(f"SeededViews evaluates every example, but {name} drops the last; give it drop_last=False")
    return given


def _is_plain(loader: DataLoader[Any], *, training: bool) -> bool:
    """Whether a loader's sampler is the one that `shuffle` gives it."""
    sampler = loader.sampler
    if not training:
        return type(sampler) is SequentialSampler
    whole = isinstance(sampler, RandomSampler) and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    return type(sampler) is RandomSampler and whole and not sampler.replacement


def parts_of(dataset: Dataset[Any]) -> Iterator[Dataset[Any]]:
    """A data set and those that it is a subset of or is put together from."""
    yield dataset
    inner = dataset.datasets if isinstance(dataset, ConcatDataset) else []
    for part in [dataset.dataset] if isinstance(dataset, Subset) else inner:
        yield from parts_of(part)


def files_of(dataset: Dataset[Any]) -> list[Path] | None:
    """The file of each row, where the data set lists them in `samples` or `imgs` as torchvision's do; else None."""
    if isinstance(dataset, Subset):
        files = files_of(dataset.dataset)
        return None if files is None else [files[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [files_of(part) for part in dataset.datasets]
        return None if None in parts else [file for part in parts for file in part or []]
    listed = getattr(dataset, "samples", getattr(dataset, "imgs", None))
    if not isinstance(listed, Sequence) or isinstance(listed, str) or len(listed) != _length(dataset):
        return None
    names = [each[0] if isinstance(each, list | tuple) and each else each for each in listed]
    if not all(isinstance(name, str | Path) for name in names):
        return None
    files = [Path(name) for name in names]
    return files if all(file.is_file() for file in files) else None


def _length(dataset: Any) -> int:  # Any: torch's Dataset has no length
    return len(dataset) if hasattr(dataset, "__len__") else -1


def class_names_of(dataset: Dataset[Any]) -> list[str] | None:
    """Name of each class, where the data set has them in `classes` as torchvision's do; else None."""
    for part in parts_of(dataset):
        classes = getattr(part, "classes", None)
        if isinstance(classes, list | tuple) and classes:
            return [str(name) for name in classes]
    return None


def transforms_text(dataset: Dataset[Any]) -> str:
    """The settings of the data set's transforms, such as probabilities; the same in each process."""
    found = [repr(getattr(part, name, None)) for part in parts_of(dataset) for name in _TRANSFORM_NAMES]
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(found))
