"""The decision whether soft targets are stored, and everything that a store depends on."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from kd_lightning.data.transfer_data import transfer_data
from kd_lightning.nets.description import fingerprint
from kd_lightning.runs.texts import counted, noun_for
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.npy import size_text

Mode = Literal["auto", "stored", "live"]

FORMAT = 2  # raised when the files' meaning changes; an older store is then another store
KEY_LENGTH = 20  # hexadecimal digits of a folder's name
RECORD = "store.json"  # in the folder of each teacher whose logits are all there


@dataclass(frozen=True)
class StoreOptions:
    """Where and how stored soft targets are kept.

    Args:
        folder: Folder of all stored logits; runs that need those of the same teacher on the same data share them.
        dtype: Number type of the stored logits.
        limit_gb: Largest size that one run may add, in 10^9 bytes.
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
    """Everything that one teacher's stored logits depend on.

    Attributes:
        teacher: Fingerprint of the teacher.
        precision: Number type of its passes.
        data: Fingerprint of the inputs and transforms.
        rows: Hash of the training rows and the validation rows.
        views: Views of each training example.
        entries: Rows of the table.
        dtype: Number type of the table.
        format: Version of the files.
    """

    teacher: str
    precision: str
    data: str
    rows: str
    views: int
    entries: int
    dtype: str
    format: int = FORMAT

    @property
    def key(self) -> str:
        """Name of the folder."""
        return hashlib.sha256(json.dumps(self._asdict()).encode()).hexdigest()[:KEY_LENGTH]

    def size(self, classes: int) -> int:
        """Bytes of the table on disk."""
        return self.entries * classes * np.dtype(self.dtype).itemsize


class Decision(NamedTuple):
    """Whether the soft targets are stored, and why."""

    stored: bool
    reason: str


def decide(
    mode: Mode,
    data: object,
    *,
    epochs: float,
    specs: Sequence[StoreSpec] | None,
    classes: int,
    options: StoreOptions,
) -> Decision:
    """Choose between stored soft targets and live teachers.

    `auto` stores where the data can be made again by (row, view) and what is not stored yet takes fewer teachers'
    passes than the run would.

    Args:
        mode: What the user asked for.
        data: The data module.
        epochs: Epochs that the student trains, may be infinite.
        specs: What the store would hold of each teacher; None where the data can't be stored.
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
    if specs is None:
        reason = f"{type(data).__name__} does not give its examples by row and view"
        if mode == "stored":
            raise ValueError(f"soft targets can't be stored: {reason}; set soft_targets to live")
        return Decision(stored=False, reason=reason)
    to_make = {spec for spec in specs if not (Path(options.folder) / spec.key / RECORD).is_file()}
    if not to_make:
        return Decision(stored=True, reason="made by an earlier run")
    size = sum(spec.size(classes) for spec in to_make)
    if size > options.limit_gb * 1e9:
        reason = f"{size_text(size)} are more than store.limit_gb, {options.limit_gb}"
        if mode == "stored":
            raise ValueError(f"soft targets can't be stored: {reason}; raise it, or go live")
        return Decision(stored=False, reason=reason)
    if mode == "stored":
        return Decision(stored=True, reason="as asked")
    return _fewer_passes(specs, len(to_make), epochs)


def _fewer_passes(specs: Sequence[StoreSpec], to_make: int, epochs: float) -> Decision:
    """Compare the passes that fill the store with the passes of live teachers. A stored teacher needs none."""
    views, live_passes = specs[0].views, epochs * len(specs)
    there = len(set(specs)) - to_make
    stored = f"{there} of {len(set(specs))} teachers are stored; for the others " if there else ""
    if views * to_make < live_passes:
        passes = f"{epochs:g} {noun_for(epochs, 'pass', 'passes')}{' of all' if there else ''}"
        return Decision(stored=True, reason=f"{stored}{counted(views, 'view')} of each example instead of {passes}")
    would_pay = math.ceil(live_passes / to_make) - 1
    advice = f"; with at most {would_pay} it would" if would_pay > 0 else ""
    run = f"{epochs:g} {noun_for(epochs, 'epoch')}"
    reason = f"{stored}storing {counted(views, 'view')} of each example saves no pass in {run}{advice}"
    return Decision(stored=False, reason=reason)


def store_specs(ensemble: FrozenEnsemble, data: object, *, options: StoreOptions) -> dict[int, StoreSpec] | None:
    """Describe what is stored of each teacher on this data; None where the data module can't be stored.

    Args:
        ensemble: The teachers.
        data: The data module, set up.
        options: Number type.

    Returns:
        By the teacher's number, without those whose logits were made elsewhere.

    Raises:
        ValueError: If a row both trains and validates.
    """
    source = transfer_data(data)
    if source is None:
        return None
    train_rows, val_rows = source.train_rows, source.val_rows
    if bool(torch.isin(val_rows, train_rows).any()):
        raise ValueError("soft targets can't be stored: some rows both train and validate; set soft_targets to live")
    files = logits_files(ensemble)
    of_all = StoreSpec(
        teacher="",
        precision=ensemble.precision,
        data=source.fingerprint(),
        rows=hashlib.sha256(train_rows.numpy().tobytes() + b"|" + val_rows.numpy().tobytes()).hexdigest(),
        views=source.view_count,
        entries=source.view_count * len(train_rows) + len(val_rows),
        dtype=options.dtype,
    )
    nets = enumerate(ensemble.nets)
    return {number: of_all._replace(teacher=fingerprint(net)) for number, net in nets if number not in files}
