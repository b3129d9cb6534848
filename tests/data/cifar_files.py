"""Files as CIFAR has them, of few random pictures, and the MD5 sums that torchvision then looks for."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets


def write_cifar(root: Path, dataset: str, monkeypatch: pytest.MonkeyPatch, train: int = 200, test: int = 100) -> Path:
    """Write a data set's files, a class after the other, and return their folder.

    Args:
        root: Folder for the data set's own.
        dataset: CIFAR10 or CIFAR100.
        monkeypatch: Gives torchvision the files' names and sums.
        train: Training pictures.
        test: Test pictures.
    """
    published: Any = getattr(datasets, dataset)
    classes = int(dataset.removeprefix("CIFAR"))
    folder: Path = root / published.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()  # noqa: S324  # as published

    def pictures(name: str, count: int) -> list[list[str]]:
        pixels = random.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = [number % classes for number in range(count)]
        return [[name, write(name, {"data": pixels, "labels" if classes == 10 else "fine_labels": labels})]]

    monkeypatch.setattr(published, "train_list", pictures("train", train))
    monkeypatch.setattr(published, "test_list", pictures("test", test))
    meta = dict(published.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: [f"class {number}" for number in range(classes)]})
    monkeypatch.setattr(published, "meta", meta)
    monkeypatch.setattr(published, "url", "http://127.0.0.1:9/cifar.tar.gz")
    return folder
