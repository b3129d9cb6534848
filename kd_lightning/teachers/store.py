"""The teachers' logits on the transfer set: computed once, kept on disk, memory-mapped while the student trains.

The teachers are frozen, so their logits are constants. They are kept per teacher, before any softmax: temperature,
weights and averaging stay free. One table holds an entry per view of each training image, then one per validation
image; entries are kept together, so that a batch reads whole lines of memory:

    logits.npy   (entries, teachers, classes)
    store.json   what it was made from, and the files' checksums

A folder appears under its final name only when it is whole. Its name is a hash over everything that the logits
depend on; what lies in it is checked against its checksums, and a sample of it against the teachers, before use.
"""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from kd_lightning.data.inputs import Inputs, moved
from kd_lightning.data.transfer_data import TransferData, unit_of
from kd_lightning.runs.files import flush, read_json, write_json
from kd_lightning.runs.locks import is_locked, locked
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.npy import TableWriter, file_checksum, map_table, size_text
from kd_lightning.teachers.store_plan import KEY_LENGTH, StoreOptions, StoreSpec

_RECORD = "store.json"
_LOGITS = "logits.npy"
_FILL_BATCH = 1000  # entries per teachers' pass; measured as fast as any larger one on two cores
_SAMPLE = 32  # entries that are compared with the teachers when a store is opened
_SAMPLE_TOLERANCE = 0.02  # absolute and relative: above the rounding of float16 and of bfloat16 passes
_ABANDONED_SECONDS = 24 * 3600  # where there are no locks: a fill writes every few seconds


class SoftTargetStore:
    """Stored logits, read by row and view.

    Args:
        folder: A whole store.
        train_rows: (examples,) int64, the rows it was made for.
        val_rows: (examples,) int64, likewise.
        classes: Logits of a teacher.
        views: Views of each training row.
    """

    def __init__(self, folder: Path, train_rows: Tensor, val_rows: Tensor, classes: int, views: int) -> None:
        self.folder = folder
        self._logits = map_table(folder / _LOGITS)
        self.classes = classes
        self.entry_count = len(self._logits)
        self._stride = len(train_rows)
        rows = int(torch.cat([train_rows, val_rows]).max()) + 1
        self._first_entry = torch.full((rows + 1,), -1)  # and a last place for rows that are unknown
        self._first_entry[train_rows] = torch.arange(len(train_rows))
        self._first_entry[val_rows] = views * len(train_rows) + torch.arange(len(val_rows))

    def logits(self, rows: Tensor, views: Tensor) -> Tensor:
        """The teachers' logits on these rows in these views, (teachers, batch, classes) float32, before softmax.

        Args:
            rows: (batch,) int64.
            views: (batch,) int64, 0 for validation rows.

        Raises:
            IndexError: If a row is not in the store.
        """
        return self.entries(self.entries_of(rows, views)).to(rows.device, non_blocking=True)

    def entries_of(self, rows: Tensor, views: Tensor) -> Tensor:
        """Places of these rows in these views in the table, (batch,) int64; arguments and errors as in `logits`."""
        rows = rows.cpu()
        first = self._first_entry[rows]  # -1, an unknown row, finds the last place
        if int(first.min()) < 0:
            if int(rows.min()) < 0:
                raise IndexError(
                    "stored soft targets need batches that say their rows, kd_lightning.Batch; set soft_targets to live"
                )
            raise IndexError("a batch holds rows that the stored soft targets were not made for")
        return first.add_(views.cpu(), alpha=self._stride)

    def entries(self, entries: Tensor) -> Tensor:
        """The teachers' logits of these entries, (teachers, batch, classes) float32."""
        found = self._logits.index_select(0, entries).float()  # (batch, teachers, classes)
        return found.transpose(0, 1)  # -> (teachers, batch, classes)


def open_store(
    spec: StoreSpec,
    ensemble: FrozenEnsemble,
    data: TransferData,
    *,
    options: StoreOptions,
    device: torch.device,
    say: Callable[[str], None],
) -> SoftTargetStore:
    """Open the store, and compute it first where there is none or a damaged one.

    A whole store is only read: it may lie on a disk that nobody can write. Processes that ask for one that is not there
    take turns: the first computes, the others find it done. This holds for the ranks of a run too; no collective
    operation is waited for. Where the file system has no locks, each computes, and the first to finish is used.

    Args:
        spec: From `store_spec` for the same teachers and data.
        ensemble: The teachers, on `device`.
        data: The data module.
        options: Where it is kept.
        device: Where the teachers run.
        say: Called with a line about what happens.

    Raises:
        OSError: If it can't be written.
        ValueError: If a logit does not fit the number type.
    """
    folder = Path(options.folder) / spec.key
    rows = _Rows(data)
    with torch.no_grad():
        classes = ensemble(moved(rows.inputs(torch.arange(1)), device)).shape[-1]
    # A whole store takes no lock: it may lie where nobody can write.
    found = _whole_store(folder, spec, ensemble, rows, classes, device)
    if isinstance(found, SoftTargetStore):
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock_of(folder)) as alone:
            if not alone:
                say(f"no locks in {folder.parent}, so another process may compute the same soft targets")
            found = _whole_store(folder, spec, ensemble, rows, classes, device)
            if isinstance(found, SoftTargetStore):
                return found
            if found is not None:
                say(f"stored soft targets in {folder} {found}; computing them anew")
                shutil.rmtree(folder)
            say(
                f"computing soft targets: {len(ensemble)} teachers on {spec.entries:,} {unit_of(data)}, "
                f"{size_text(spec.entries * spec.bytes_per_entry(classes))} in {folder}"
            )
            _remove_abandoned_parts(folder, alone=alone)
            _write_store(folder, spec, ensemble, rows, classes, device)
    except OSError as error:
        raise OSError(
            f"can't write soft targets into {folder.parent}: {error.strerror or error}; "
            "set --model.store.folder elsewhere, or --model.soft_targets live"
        ) from error
    return SoftTargetStore(folder, rows.train, rows.val, classes, spec.views)


class _Rows:
    """The entries of a store, in order: each view of the training rows, then the validation rows."""

    def __init__(self, data: TransferData) -> None:
        self.data, self.views = data, data.view_count
        self.train, self.val = data.train_rows, data.val_rows
        self.rows = torch.cat([self.train.repeat(self.views), self.val])

    def inputs(self, entries: Tensor) -> Inputs:
        views = entries.div(len(self.train), rounding_mode="floor")
        views[entries >= self.views * len(self.train)] = 0  # validation examples come as they are
        return self.data.inputs(self.rows[entries], views)

    def batches(self) -> Iterator[Tensor]:
        return iter(torch.split(torch.arange(len(self.rows)), _FILL_BATCH))


def _whole_store(
    folder: Path, spec: StoreSpec, ensemble: FrozenEnsemble, rows: _Rows, classes: int, device: torch.device
) -> SoftTargetStore | str | None:
    """The store, or what is wrong with it, or None where there is none."""
    if not folder.exists():
        return None
    problem = _problem_of(folder, spec)
    if problem is not None:
        return problem
    store = SoftTargetStore(folder, rows.train, rows.val, classes, spec.views)
    return _stale(store, ensemble, rows, device) or store


def _write_store(
    folder: Path, spec: StoreSpec, ensemble: FrozenEnsemble, rows: _Rows, classes: int, device: torch.device
) -> None:
    """Compute the logits and write them; whatever ends it early, nothing of it stays.

    Raises:
        OSError: If it can't be written.
    """
    # Without locks others may write a part of the same store.
    part = folder.with_name(f".{spec.key}.{platform.node()}-{os.getpid()}.part")
    shape = (spec.entries, len(ensemble), classes)
    try:
        part.mkdir()
        with closing(TableWriter(part / _LOGITS, shape, np.dtype(spec.dtype))) as table:
            batches = -(-len(rows.rows) // _FILL_BATCH)
            shown = track(
                rows.batches(),
                description="soft targets",
                total=batches,
                transient=True,
                disable=not get_console().is_terminal,  # it would leave an empty line in a log
            )
            for entries in shown:
                logits = ensemble(moved(rows.inputs(entries), device))  # (teachers, batch, classes)
                table.append(logits.transpose(0, 1))  # (batch, teachers, classes)
            checksums = {table.path.name: table.checksum()}
        record = {**spec._asdict(), "key": spec.key, "classes": classes, "sha256": checksums}
        write_json(part / _RECORD, record)
        _rename(part, folder, spec)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _rename(part: Path, folder: Path, spec: StoreSpec) -> None:
    """Give a finished part its final name, unless another process was faster.

    Raises:
        OSError: If it can't be renamed.
    """
    try:
        part.rename(folder)
    except OSError:
        if _problem_of(folder, spec) is not None:
            raise
    flush(folder.parent)


def _remove_abandoned_parts(folder: Path, *, alone: bool) -> None:
    """Remove what killed processes left of this store and of others, and nothing that a process still writes.

    Args:
        folder: Of this store.
        alone: Whether this process holds its lock.
    """
    for part in folder.parent.glob(f".{'[0-9a-f]' * KEY_LENGTH}.*part"):
        store = folder.with_name(part.name.split(".")[1])  # .KEY.HOST-PROCESS.part
        in_use = False if alone and store == folder else is_locked(_lock_of(store))
        if in_use is None:  # no locks here
            in_use = _written_lately(part)
        if not in_use:
            shutil.rmtree(part, ignore_errors=True)


def _written_lately(part: Path) -> bool:
    """Whether a process may still be writing a part."""
    try:
        return time.time() - max(file.stat().st_mtime for file in (part, *part.iterdir())) < _ABANDONED_SECONDS
    except FileNotFoundError:  # it was finished or removed just now
        return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _problem_of(folder: Path, spec: StoreSpec) -> str | None:
    """What is wrong with the files of a store, None where they are whole."""
    try:
        record = read_json(folder / _RECORD)
        if record["key"] != spec.key:
            return "belong to other teachers or data"
        for name, expected in record["sha256"].items():
            if file_checksum(folder / name) != expected:
                return "are damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "are damaged"
    return None


def _stale(store: SoftTargetStore, ensemble: FrozenEnsemble, rows: _Rows, device: torch.device) -> str | None:
    """Compare a sample with the teachers; only code that changed under the same weights gets this far."""
    entries = torch.randint(len(rows.rows), (_SAMPLE,), generator=torch.Generator().manual_seed(0))
    stored = store.entries(entries)
    live = ensemble(moved(rows.inputs(entries), device)).cpu()
    kept = live >= live.topk(min(3, live.shape[-1]), dim=-1).values[..., -1:]
    close = torch.isclose(stored[kept], live[kept], rtol=_SAMPLE_TOLERANCE, atol=_SAMPLE_TOLERANCE)
    return None if bool(close.all()) else "differ from what the teachers answer"
