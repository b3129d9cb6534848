"""A changed picture, file or transform gives another fingerprint; the same data gives the same one anywhere."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kd_lightning.data import replay_fingerprint as module
from kd_lightning.data.replay import Replay
from kd_lightning.data.replay_fingerprint import replay_fingerprint
from tests.data.pictures import draw_pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", each=5)


def _fingerprint(folder: Path, *, views: int = 3, seed: int = 0, erased: float = 0.01, workers: int = 0) -> str:
    tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([v2.RandomHorizontalFlip(), *tensor, v2.RandomErasing(erased)])
    loader: DataLoader[Any] = DataLoader(ImageFolder(str(folder), transform), batch_size=8, num_workers=workers)
    return replay_fingerprint(Replay(loader, (seed, 0)), views)


def test_the_same_data_has_one_fingerprint_wherever_it_lies(pictures: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(pictures, tmp_path / "moved", copy_function=shutil.copyfile)
    assert _fingerprint(pictures) == _fingerprint(pictures, workers=2) == _fingerprint(moved)


def test_what_changes_changes_the_fingerprint(pictures: Path, tmp_path: Path) -> None:
    before = _fingerprint(pictures)
    assert before != _fingerprint(pictures, seed=1)
    assert before != _fingerprint(pictures, erased=0.011)  # which no probe needs to show
    file = pictures / "class1" / "003.jpg"
    times = file.stat()
    file.write_bytes((pictures / "class2" / "003.jpg").read_bytes())
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = _fingerprint(pictures)
    assert changed != before
    shutil.copyfile(file, pictures / "class2" / "999.jpg")
    assert _fingerprint(pictures) not in {before, changed}


def test_large_data_is_known_by_sizes_and_times(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_LIMIT", 100)
    before = _fingerprint(pictures)
    assert before == _fingerprint(pictures)
    os.utime(pictures / "class1" / "003.jpg", ns=(0, 1))
    assert before != _fingerprint(pictures)


def test_data_without_files_is_known_by_each_sample() -> None:
    inputs = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))

    def fingerprint() -> str:
        loader: DataLoader[Any] = DataLoader(TensorDataset(inputs, torch.zeros(3000, dtype=torch.int64)), batch_size=8)
        return replay_fingerprint(Replay(loader, (0, 0)), 2)

    before = fingerprint()
    assert before == fingerprint()
    inputs[2999, 1] += 1
    assert before != fingerprint()
