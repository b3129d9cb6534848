"""The teachers' logits on the transfer set: computed once, kept on disk, memory-mapped while the student trains.

The teachers are frozen, so their logits are constants. They are kept per teacher, before any softmax: temperature,
weights and averaging stay free. One table holds an entry per view of each training image, then one per validation
image; entries are kept together, so that a batch reads whole lines of memory:

    logits.npy   (entries, teachers, classes), or (entries, teachers, top_k + 1) with top_k
    classes.npy  (entries, teachers, top_k), only with top_k: which classes these logits belong to
    store.json   what it was made from, and the files' checksums

A folder appears under its final name only when it is whole. Its name is a hash over everything that the logits
depend on; what lies in it is checked against its checksums, and a sample of it against the teachers, before use.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from kd_lightning.ensemble import FrozenEnsemble
from kd_lightning.files import flush, write_json
from kd_lightning.store_plan import StoreOptions, StoreSpec, ViewedData, class_type
from kd_lightning.tables import TableWriter, file_checksum, locked, map_table, size_text

_RECORD = "store.json"
_LOGITS, _CLASSES = "logits.npy", "classes.npy"
_FILL_BATCH = 1000  # entries per teachers' pass; measured as fast as any larger one on two cores
_SAMPLE = 32  # entries that are compared with the teachers when a store is opened
_SAMPLE_TOLERANCE = 0.02  # absolute and relative: above the rounding of float16 and of bfloat16 passes
_AVERAGED_LIMIT = 256_000_000  # bytes of averaged soft targets that are held in memory; beyond, a batch at a time
_AVERAGE_BATCH = 10_000  # entries; keeps what is in between small


class SoftTargetStore:
    """Stored logits, read by row and view, and the soft targets made of them.

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
        self._classes = map_table(folder / _CLASSES) if (folder / _CLASSES).exists() else None
        self._count = classes
        self._stride = len(train_rows)
        self._averaged: Tensor | None = None
        rows = int(torch.cat([train_rows, val_rows]).max()) + 1
        self._first_entry = torch.full((rows,), -1)
        self._first_entry[train_rows] = torch.arange(len(train_rows))
        self._first_entry[val_rows] = views * len(train_rows) + torch.arange(len(val_rows))

    def average(self, average: Callable[[Tensor], Tensor]) -> None:
        """Set how teachers are averaged, and do it once for all entries where the result is small enough to hold.

        Args:
            average: Maps logits (teachers, batch, classes) to log-probabilities (batch, classes).
        """
        self._average = average
        entries = len(self._logits)
        if entries * self._count * 4 <= _AVERAGED_LIMIT:
            self._averaged = torch.empty(entries, self._count)
            for part in torch.split(torch.arange(entries), _AVERAGE_BATCH):
                self._averaged[part] = average(self.entries(part))

    def target_log_probs(self, rows: Tensor, views: Tensor) -> Tensor:
        """Log of the soft targets of these rows in these views, (batch, classes) float32; `average` comes first.

        Args:
            rows: (batch,) int64.
            views: (batch,) int64, 0 for validation rows.

        Raises:
            IndexError: If a row is not in the store.
        """
        entries = self._entries_of(rows, views)
        if self._averaged is not None:
            return self._averaged.index_select(0, entries).to(rows.device, non_blocking=True)
        return self._average(self.entries(entries).to(rows.device, non_blocking=True))

    def logits(self, rows: Tensor, views: Tensor) -> Tensor:
        """The teachers' logits on these rows in these views, (teachers, batch, classes) float32, before softmax.

        Arguments and errors are those of `target_log_probs`.
        """
        return self.entries(self._entries_of(rows, views)).to(rows.device, non_blocking=True)

    def _entries_of(self, rows: Tensor, views: Tensor) -> Tensor:
        first = self._first_entry[rows.cpu()]
        if int(first.min()) < 0:
            raise IndexError("a batch holds rows that the stored soft targets were not made for")
        return first.add_(views.cpu(), alpha=self._stride)

    def entries(self, entries: Tensor) -> Tensor:
        """The teachers' logits of these entries, (teachers, batch, classes) float32."""
        found = self._logits.index_select(0, entries).float()  # (batch, teachers, classes or top_k + 1)
        if self._classes is not None:
            known, rest = found[..., :-1], found[..., -1:]
            places = self._classes.index_select(0, entries).long()
            found = rest.expand(*rest.shape[:-1], self._count).clone().scatter_(-1, places, known)
        return found.transpose(0, 1)  # (batch, teachers, classes) -> (teachers, batch, classes)


def open_store(
    spec: StoreSpec,
    ensemble: FrozenEnsemble,
    data: ViewedData,
    *,
    options: StoreOptions,
    device: torch.device,
    say: Callable[[str], None],
) -> SoftTargetStore:
    """Open the store, and compute it first where there is none or a damaged one.

    Processes that ask for one store at the same time take turns: the first computes, the others find it done. This
    holds for the ranks of a run too; no collective operation is waited for.

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
        classes = ensemble(rows.inputs(torch.arange(1)).to(device)).shape[-1]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{spec.key}.lock")):
            problem = _problem_of(folder, spec)
            if problem is None:
                store = SoftTargetStore(folder, rows.train, rows.val, classes, spec.views)
                problem = _stale(store, ensemble, rows, device)
                if problem is None:
                    return store
            if folder.exists():
                say(f"stored soft targets in {folder} {problem}; computing them anew")
                shutil.rmtree(folder)
            say(
                f"computing soft targets: {len(ensemble)} teachers on {spec.entries:,} images, "
                f"{size_text(spec.entries * spec.bytes_per_entry(classes))} in {folder}"
            )
            _write_store(folder, spec, ensemble, rows, classes, device)
    except OSError as error:
        raise OSError(
            f"can't write soft targets into {folder.parent}: {error.strerror or error}; "
            "set --model.store.folder elsewhere, or --model.soft_targets live"
        ) from error
    return SoftTargetStore(folder, rows.train, rows.val, classes, spec.views)


class _Rows:
    """The entries of a store, in order: each view of the training rows, then the validation rows."""

    def __init__(self, data: ViewedData) -> None:
        self.data, self.views = data, data.view_count
        self.train, self.val = data.train_rows, data.val_rows
        self.rows = torch.cat([self.train.repeat(self.views), self.val])

    def inputs(self, entries: Tensor) -> Tensor:
        views = entries.div(len(self.train), rounding_mode="floor")
        views[entries >= self.views * len(self.train)] = 0  # validation images come as they are
        return self.data.inputs(self.rows[entries], views)

    def batches(self) -> Iterator[Tensor]:
        return iter(torch.split(torch.arange(len(self.rows)), _FILL_BATCH))


def _write_store(
    folder: Path, spec: StoreSpec, ensemble: FrozenEnsemble, rows: _Rows, classes: int, device: torch.device
) -> None:
    for leftover in folder.parent.glob(f".{spec.key}.*part"):  # of killed runs; the lock keeps others out
        shutil.rmtree(leftover)
    part = folder.with_name(f".{spec.key}.part")
    part.mkdir()
    width = classes if spec.top_k is None else spec.top_k + 1
    tables = [TableWriter(part / _LOGITS, (spec.entries, len(ensemble), width), np.dtype(spec.dtype))]
    if spec.top_k is not None:
        tables.append(TableWriter(part / _CLASSES, (spec.entries, len(ensemble), spec.top_k), class_type(classes)))
    try:
        batches = -(-len(rows.rows) // _FILL_BATCH)
        for entries in track(rows.batches(), description="soft targets", total=batches, transient=True):
            logits = ensemble(rows.inputs(entries).to(device)).transpose(0, 1)  # -> (batch, teachers, classes)
            columns = [logits] if spec.top_k is None else top_logits(logits, spec.top_k, spec.temperature or 1.0)
            for table, column in zip(tables, columns, strict=True):
                table.append(column)
        checksums = {table.path.name: table.checksum() for table in tables}
        record = {**spec._asdict(), "key": spec.key, "classes": classes, "sha256": checksums}
        write_json(part / _RECORD, record)
        part.rename(folder)
        flush(folder.parent)
    finally:
        for table in tables:
            table.close()
        shutil.rmtree(part, ignore_errors=True)


def top_logits(logits: Tensor, top_k: int, temperature: float) -> list[Tensor]:
    """The largest logits, one more that stands for each of the others, and the classes of the largest.

    The one that stands for the others gives all of them together the probability that they have at `temperature`.

    Args:
        logits: (..., classes) float, before softmax.
        top_k: How many are kept, from 1 to classes - 1.
        temperature: T in [0.001, 1000], no unit.

    Returns:
        (..., top_k + 1) float and (..., top_k) int64.

    Raises:
        ValueError: If nothing would be left out.
    """
    classes = logits.shape[-1]
    if top_k >= classes:
        raise ValueError(f"store top_k must be below the number of classes, {classes}, got {top_k}")
    known, places = logits.topk(top_k, dim=-1)
    others = logits.scatter(-1, places, -torch.inf) / temperature
    mean = temperature * (others.logsumexp(dim=-1, keepdim=True) - np.log(classes - top_k))
    return [torch.cat([known, mean], dim=-1), places]


def _problem_of(folder: Path, spec: StoreSpec) -> str | None:
    """What is wrong with the files of a store, None where they are whole."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        if record["key"] != spec.key:
            return "belong to other teachers or data"
        for name, expected in record["sha256"].items():
            if file_checksum(folder / name) != expected:
                return "are damaged"
    except (OSError, ValueError, KeyError, TypeError):
        return "are damaged"
    return None


def _stale(store: SoftTargetStore, ensemble: FrozenEnsemble, rows: _Rows, device: torch.device) -> str | None:
    """Compare a sample with the teachers; only code that changed under the same weights gets this far."""
    entries = torch.randint(len(rows.rows), (_SAMPLE,), generator=torch.Generator().manual_seed(0))
    stored = store.entries(entries)
    live = ensemble(rows.inputs(entries).to(device)).cpu()
    # With top_k the smaller logits are replaced by a mean: compare what is kept as it was.
    kept = (
        live >= live.topk(min(3, live.shape[-1]), dim=-1).values[..., -1:]
        if store._classes is None
        else (live == live.max(dim=-1, keepdim=True).values)
    )
    close = torch.isclose(stored[kept], live[kept], rtol=_SAMPLE_TOLERANCE, atol=_SAMPLE_TOLERANCE)
    return None if bool(close.all()) else "differ from what the teachers answer"
