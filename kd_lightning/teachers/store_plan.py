"""Whether soft targets are stored, and what such a store depends on."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from kd_lightning.data.transfer_data import transfer_data
from kd_lightning.nets.description import fingerprint
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.npy import size_text

Mode = Literal["auto", "stored", "live"]

FORMAT = 1  # raised when the files' meaning changes; an older store is then another store
KEY_LENGTH = 20  # hexadecimal digits of a store's name


@dataclass(frozen=True)
class StoreOptions:
    """Where and how stored soft targets are kept.

    Args:
        folder: Folder of all stores; runs that need the same logits share one.
        dtype: Number type of the stored logits.
        limit_gb: Largest store that is written, in 10^9 bytes.
        top_k: Must be None; older configurations hold it.
    """

    folder: str = "runs/soft_targets"
    dtype: Literal["float16", "float32"] = "float16"
    limit_gb: float = 10.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If one is out of range.
        """
        if not self.limit_gb > 0:
            raise ValueError(f"store limit_gb must be > 0, got {self.limit_gb}")
        if self.top_k is not None:
            raise ValueError(
                f"store top_k must be null, got {self.top_k}: a part of the logits is wrong at temperatures above 1"
            )


class StoreSpec(NamedTuple):
    """Everything that stored logits depend on.

    Attributes:
        teachers: Fingerprint of each teacher, in order.
        precision: Number type of the teachers' passes.
        data: Fingerprint of the inputs and transforms.
        rows: Hash of the training rows and the validation rows.
        views: Views of each training image.
        entries: Rows of the table.
        dtype: Number type of the table.
        format: Version of the files.
    """

    teachers: tuple[str, ...]
    precision: str
    data: str
    rows: str
    views: int
    entries: int
    dtype: str
    top_k: None = None  # keys of stores that are there hold both
    temperature: None = None
    format: int = FORMAT

    @property
    def key(self) -> str:
        """Name of the store's folder."""
        return hashlib.sha256(json.dumps(self._asdict()).encode()).hexdigest()[:KEY_LENGTH]

    def bytes_per_entry(self, classes: int) -> int:
        """Size of an entry on disk."""
        return len(self.teachers) * classes * np.dtype(self.dtype).itemsize


class Decision(NamedTuple):
    """Whether the soft targets are stored, and why."""

    stored: bool
    reason: str


def decide(
    mode: Mode, data: object, *, epochs: float, spec: StoreSpec | None, classes: int, options: StoreOptions
) -> Decision:
    """Choose between stored soft targets and live teachers.

    `auto` stores where the data can be made again by (row, view) and the store takes fewer teachers' passes than the
    run would.

    Args:
        mode: What the user asked for.
        data: The data module.
        epochs: Epochs that the student trains, may be infinite.
        spec: What the store would hold; None where the data can't be stored.
        classes: Logits of a teacher.
        options: Folder and limit.

    Raises:
        ValueError: If `stored` is asked for and not possible.
    """
    match mode:
        case "live":
            return Decision(stored=False, reason="as asked")
        case "auto" | "stored":
            pass
        case _:
            raise ValueError(f"soft_targets must be auto, stored or live, got {mode!r}")
    if spec is None:
        reason = f"{type(data).__name__} does not give its examples by row and view"
        if mode == "stored":
            raise ValueError(f"soft targets can't be stored: {reason}; set soft_targets to live")
        return Decision(stored=False, reason=reason)
    if (Path(options.folder) / spec.key).is_dir():
        return Decision(stored=True, reason="made by an earlier run")
    size = spec.entries * spec.bytes_per_entry(classes)
    if size > options.limit_gb * 1e9:
        reason = f"{size_text(size)} are more than store.limit_gb, {options.limit_gb}"
        if mode == "stored":
            raise ValueError(f"soft targets can't be stored: {reason}; raise it, or go live")
        return Decision(stored=False, reason=reason)
    if mode == "stored":
        return Decision(stored=True, reason="as asked")
    if spec.views >= epochs:
        return Decision(
            stored=False,
            reason=f"{spec.views} views of each example would be no fewer passes than {epochs:g} epochs"
            + (f"; up to {math.ceil(epochs) - 1} would pay" * (epochs > 1)),
        )
    return Decision(
        stored=True, reason=f"{spec.views} view{'s' * (spec.views > 1)} of each example instead of {epochs:g} passes"
    )


def store_spec(ensemble: FrozenEnsemble, data: object, *, options: StoreOptions) -> StoreSpec | None:
    """Describe the store for these teachers on this data; None where the data module can't be stored.

    Args:
        ensemble: The teachers.
        data: The data module, set up.
        options: Number type.

    Raises:
        ValueError: If a row both trains and validates.
    """
    source = transfer_data(data)
    if source is None:
        return None
    train_rows, val_rows = source.train_rows, source.val_rows
    if bool(torch.isin(val_rows, train_rows).any()):
        raise ValueError("soft targets can't be stored: some rows both train and validate; set soft_targets to live")
    return StoreSpec(
        teachers=tuple(fingerprint(net) for net in ensemble.nets),
        precision=ensemble.precision,
        data=source.fingerprint(),
        rows=hashlib.sha256(train_rows.numpy().tobytes() + b"|" + val_rows.numpy().tobytes()).hexdigest(),
        views=source.view_count,
        entries=source.view_count * len(train_rows) + len(val_rows),
        dtype=options.dtype,
    )
