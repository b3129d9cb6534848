"""LogitsFile: a file of logits made elsewhere, used in place of a teacher net."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from kd_lightning.data.transfer_data import transfer_data
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.npy import file_checksum
from kd_lightning.teachers.store import Entries, SoftTargetStore, Table

SUFFIXES = (".npy", ".safetensors")
_VAL = ".val.npy"
_CHECKED_AT_ONCE = 100_000  # rows


@runtime_checkable
class HasRowCount(Protocol):
    """A data module that has the number of rows of its training file; any TransferData may."""

    @property
    def row_count(self) -> int:
        """Rows of all training examples, those that neither train nor validate included."""


class LogitsFile(nn.Module):
    """A teacher of which only the logits on the training examples are given, before softmax.

    A `.npy` file holds (rows, classes), or (views, rows, classes) where the data has several views. Its rows are the
    training rows in their order, or all rows of the training file, of which the training and the validation rows are
    taken. Logits of the validation rows may be in the same folder in `<name>.val.npy`, (rows, classes). A
    `.safetensors` file holds one tensor, or two that are named `train` and `val`.

    Such a teacher answers no new inputs, so its soft targets are always stored.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or holds something else.

    Example:
        >>> DistillModule(student=MLP(hidden=[300]), teachers="logits.npy", temperature=4.0)
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no logits file {path}")
        val_path = path.with_suffix(_VAL)
        files = [path, *([val_path] if path.suffix == ".npy" and val_path.is_file() else [])]
        if path.suffix == ".npy":
            self._train, self._val = _read_npy(path), _read_npy(val_path) if len(files) > 1 else None
        else:
            self._train, self._val = _read_safetensors(path)
        self._checksums = [file_checksum(file) for file in files]
        self._store: SoftTargetStore | None = None

    def extra_repr(self) -> str:
        """The files' checksums: a net's fingerprint is made of its text and its weights."""
        return ", ".join(self._checksums)

    def bind(self, data: object) -> None:
        """Find out which row of the file belongs to which example, and check the logits.

        Args:
            data: The data module, set up.

        Raises:
            ValueError: If the sizes do not fit, or it holds something else than logits.
        """
        source = transfer_data(data)
        if source is None:
            raise ValueError(
                f"the logits in {self.path} belong to rows, and {type(data).__name__} does not give its examples by "
                "row and view; use a TransferData, such as InMemoryDataModule"
            )
        entries = Entries(source)
        total = source.row_count if isinstance(source, HasRowCount) else entries.last_row + 1
        table = _table(self._train, self._val, entries, total, self.path)
        _check_values(table.values, self.path)
        self._store = SoftTargetStore([table], entries)

    @property
    def store(self) -> SoftTargetStore:
        """Its logits by row and view.

        Raises:
            RuntimeError: If it is not bound.
        """
        if self._store is None:
            raise RuntimeError("LogitsFile.bind was not called")
        return self._store

    @property
    def has_val(self) -> bool:
        """Whether it holds logits of the validation rows."""
        return self.store.entry_count == len(self.store.all_entries)

    def forward(self, inputs: object) -> Tensor:
        """Raise: a file can't answer new inputs.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.path} holds logits of the training examples and can't answer other inputs")


def load_logits(path: Path) -> LoadedTeacher:
    """Take a file of logits as a teacher; errors as of `LogitsFile`."""
    return LoadedTeacher(LogitsFile(path), str(path), {})


def logits_files(ensemble: FrozenEnsemble) -> dict[int, LogitsFile]:
    """The teachers that are files of logits, by their numbers."""
    return {number: net for number, net in enumerate(ensemble.nets) if isinstance(net, LogitsFile)}


def _read_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, mmap_mode="c")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"logits file {path} is damaged or holds more than numbers: {error}") from error
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"logits in {path} must be float16, float32 or float64, got {array.dtype}")
    return torch.from_numpy(array)


def _read_safetensors(path: Path) -> tuple[Tensor, Tensor | None]:
    from safetensors import SafetensorError  # comes with the extra kd_lightning[safetensors]
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"logits file {path} is damaged: {error}") from error
    if len(tensors) == 1:
        return next(iter(tensors.values())), None
    if tensors.keys() != {"train", "val"}:
        raise ValueError(f"logits file {path} must hold one tensor, or train and val, got {', '.join(sorted(tensors))}")
    return tensors["train"], tensors["val"]


def _table(train: Tensor, val: Tensor | None, entries: Entries, total: int, path: Path) -> Table:
    """The logits in the order of the entries."""
    views, training, validating = entries.views, len(entries.train_rows), len(entries.val_rows)
    shape = tuple(train.shape)
    if train.ndim == 2:
        train = train[None]  # (rows, classes) -> (1, rows, classes)
    if train.ndim != 3 or train.shape[0] != views or train.shape[1] not in {training, total}:
        expected = f"({views}, rows, classes)" if views > 1 else "(rows, classes)"
        raise ValueError(
            f"logits in {path} must be {expected} with {training:,} rows, those that train, or {total:,}, all of the "
            f"training file, got {shape}"
        )
    values = train.reshape(-1, train.shape[2])  # (views, rows, classes) -> (views * rows, classes)
    places = torch.arange(len(values))
    if train.shape[1] == total:
        first = torch.arange(views) * total
        places = (first[:, None] + entries.train_rows).flatten()  # (views * training rows,)
    if val is not None and validating:
        if val.shape != (validating, train.shape[2]):
            raise ValueError(
                f"logits of the validation rows next to {path} must be ({validating}, {train.shape[2]}), "
                f"got {tuple(val.shape)}"
            )
        places = torch.cat([places, len(values) + torch.arange(validating)])
        values = torch.cat([values, val.to(values.dtype)])
    elif train.shape[1] == total:
        places = torch.cat([places, entries.val_rows])  # their plain view
    return Table(values, places)


def _check_values(values: Tensor, path: Path) -> None:
    """Refuse values that are not finite logits, and probabilities."""
    if not values.is_floating_point():
        raise ValueError(f"logits in {path} must be floating-point numbers, got {values.dtype}")
    for number, part in enumerate(values.split(_CHECKED_AT_ONCE)):  # type: ignore[no-untyped-call]
        finite = part.isfinite().all(dim=1)
        if not bool(finite.all()):
            row = number * _CHECKED_AT_ONCE + int((~finite).nonzero()[0])
            raise ValueError(f"logits in {path} must be finite numbers, got {part[~finite][0].tolist()} in row {row}")
    some = values[:1000].double()
    if bool((some >= 0).all()) and bool(((some.sum(dim=1) - 1).abs() < 0.01).all()):
        raise ValueError(f"{path} holds probabilities, expected logits; their logarithm is as good")
