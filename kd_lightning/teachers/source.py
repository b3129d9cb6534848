"""Where a batch's soft targets come from: the live teachers, or their stored logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs
from kd_lightning.data.transfer_data import transfer_data
from kd_lightning.methods.base import SoftTargets
from kd_lightning.methods.hinton import Averaging, soft_targets
from kd_lightning.teachers.ensemble import FrozenEnsemble, stacked
from kd_lightning.teachers.filling import open_store
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.store import SoftTargetStore
from kd_lightning.teachers.store_plan import Mode, StoreOptions, decide, store_specs

# Largest size in bytes of averaged soft targets in memory; above it, each batch is averaged when it is needed.
_AVERAGED_LIMIT = 256_000_000
_AVERAGE_BATCH = 10_000  # entries; keeps what is in between small


@dataclass(frozen=True)
class Softener:
    """Makes soft targets of teachers' logits.

    Args:
        averaging: How the teachers' softened distributions are combined.
        weights: One number >= 0 per teacher; equal weights by default.
        prepare: Changes the logits first, as a `SoftLoss` may ask; None leaves them.
    """

    averaging: Averaging = "arithmetic"
    weights: Sequence[float] | None = None
    prepare: Callable[[Tensor], Tensor] | None = None

    def __call__(self, teacher_logits: Tensor, temperature: float) -> SoftTargets:
        """Soften and average.

        Args:
            teacher_logits: (teachers, batch, classes) float, before softmax.
            temperature: T > 0, no unit.
        """
        return soft_targets(
            teacher_logits=teacher_logits if self.prepare is None else self.prepare(teacher_logits),
            temperature=temperature,
            averaging=self.averaging,
            weights=self.weights,
        )


class TeacherSource(ABC):
    """Turns a batch into soft targets.

    Frozen, so a copy of a module that holds one shares it: weight averaging in Lightning copies the whole module.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Share it."""
        return self

    @abstractmethod
    def __call__(self, batch: Batch, temperature: float) -> SoftTargets | None:
        """Compute the soft targets of a batch, (batch, classes), on the batch's device.

        None for validation rows that a file of logits lacks.

        Args:
            batch: As the student gets it.
            temperature: T > 0, no unit.
        """


class LiveTeachers(TeacherSource):
    """Runs the teachers on each batch.

    Args:
        ensemble: The frozen teachers.
        softener: How their logits become soft targets.
    """

    def __init__(self, ensemble: FrozenEnsemble, softener: Softener) -> None:
        self.ensemble = ensemble
        self.softener = softener

    def __call__(self, batch: Batch, temperature: float) -> SoftTargets | None:
        """Soften what they answer."""
        logits = self.logits(batch)
        return None if logits is None else self.softener(logits, temperature)

    def logits(self, batch: Batch) -> Tensor | None:
        """Logits of a batch, (teachers, batch, classes); None for validation rows that a file of logits lacks.

        Teachers that are files of logits are read by row and view, the others run on the inputs.

        Args:
            batch: As the student gets it.
        """
        files = logits_files(self.ensemble)
        if not files:
            answered: Tensor = self.ensemble(batch.inputs)
            return answered
        read = {number: file.store.logits(batch.indices, batch.views) for number, file in files.items()}
        found = {number: logits[0] for number, logits in read.items() if logits is not None}
        if len(found) < len(files):
            return None
        numbers = range(len(self.ensemble))
        return stacked([found[n] if n in files else self.ensemble.answer(n, batch.inputs) for n in numbers])

    def answer(self, inputs: Inputs, temperature: float) -> SoftTargets:
        """Soft targets for inputs (batch, ...), as the teachers take them."""
        return self.softener(self.ensemble(inputs), temperature)


class StoredTeachers(TeacherSource):
    """The teachers' logits were computed before; each batch's are read by row and view.

    Averaged soft targets are kept in memory if they are small enough.

    Args:
        store: The teachers' logits.
        softener: How they become soft targets.
    """

    def __init__(self, store: SoftTargetStore, softener: Softener) -> None:
        self.store = store
        self.softener = softener
        self._averaged: SoftTargets | None = None  # of all entries

    def average_all(self, temperature: float) -> None:
        """Average all entries at this temperature now, if the result is small enough.

        This happens before the first batch, and not later, so that a resumed run gets the same bits for each batch.

        Args:
            temperature: T > 0 of all batches, no unit.
        """
        count, classes = self.store.entry_count, self.store.classes
        if count * classes * 4 > _AVERAGED_LIMIT:
            return
        log_probs = torch.empty(count, classes)
        for part in torch.split(torch.arange(count), _AVERAGE_BATCH):
            log_probs[part] = self.softener(self.store.entries(part), temperature).log_probs
        self._averaged = SoftTargets(log_probs, temperature)

    def __call__(self, batch: Batch, temperature: float) -> SoftTargets | None:
        """Read the batch's soft targets, or the logits to make them of.

        Raises:
            IndexError: If the store was not made for one of the rows.
        """
        entries = self.store.entries_of(batch.indices, batch.views)
        if entries is None:
            return None
        device = batch.labels.device
        if self._averaged is not None and self._averaged.temperature == temperature:
            averaged = self._averaged.log_probs.index_select(0, entries)
            return SoftTargets(averaged.to(device, non_blocking=True), temperature)
        return self.softener(self.store.entries(entries).to(device, non_blocking=True), temperature)


def choose_source(
    live: LiveTeachers,
    mode: Mode,
    *,
    resumed: bool | None,
    data: object,
    epochs: float,
    classes: int,
    options: StoreOptions,
    features: bool,
    fill: bool,
    device: torch.device,
) -> TeacherSource:
    """Choose between live teachers and stored logits, log the reason, and fill the store if it is chosen.

    Args:
        live: The teachers.
        mode: What the user asked for.
        resumed: What a resumed run chose when it began, under `auto`; None for a new run.
        data: The data module.
        epochs: Epochs that the student trains, may be infinite.
        classes: Logits of a teacher.
        options: Where and how logits are stored.
        features: Whether the teachers' activations are needed, which are not stored.
        fill: Whether a store may be filled; else the choice is only logged.
        device: Where the teachers run.

    Raises:
        ValueError: If `stored` is asked for and not possible.
    """
    files = logits_files(live.ensemble)
    if files:
        if mode == "live":
            path = next(iter(files.values())).path
            raise ValueError(f"{path} holds logits and can't answer live; set soft_targets to auto or stored")
        mode = "stored"
    if features:
        if mode == "stored":
            raise ValueError("feature losses need the live teachers' activations; set soft_targets to auto or live")
        rank_zero_info("soft targets: live (feature losses need the teachers' activations)")
        return live
    specs = None if mode == "live" else store_specs(live.ensemble, data, options=options)
    as_before = mode == "auto" and resumed is not None
    if as_before:
        mode = "stored" if resumed else "live"
    needed = None if specs is None else list(specs.values())
    stored, reason = decide(mode, data, epochs=epochs, specs=needed, classes=classes, options=options)
    reason = "as the run began" if as_before else "logits made elsewhere can't be live" if files else reason
    rank_zero_info(f"soft targets: {'stored' if stored else 'live'} ({reason})")
    source = transfer_data(data)
    if not (stored and fill and specs is not None and source is not None):
        return live
    given = {number: file.store.tables[0] for number, file in files.items()}
    store = open_store(
        specs, live.ensemble, source, given=given, options=options, device=device, log_line=rank_zero_info
    )
    return StoredTeachers(store, live.softener)
