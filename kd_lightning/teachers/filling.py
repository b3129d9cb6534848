"""Filling the store: each teacher's logits are computed once, block by block, by any number of processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from rich import get_console
from rich.progress import track
from torch import Tensor

from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.data.transfer_data import TransferData
from kd_lightning.runs.locks import claimed, locked
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.npy import size_text
from kd_lightning.teachers.store import Entries, SoftTargetStore, Table
from kd_lightning.teachers.store_plan import StoreOptions, StoreSpec
from kd_lightning.teachers.teacher_folder import TeacherFolder

_PASS_BYTES = 64_000_000  # of inputs in one pass; a block of large pictures takes several
_SAMPLE = 32  # entries that are compared with the teacher when its logits are opened
_SAMPLE_TOLERANCE = 0.02  # absolute and relative: above the rounding of float16 and of bfloat16 passes


def open_store(
    specs: Mapping[int, StoreSpec],
    ensemble: FrozenEnsemble,
    data: TransferData,
    *,
    given: Mapping[int, Table] | None = None,
    options: StoreOptions,
    device: torch.device,
    log_line: Callable[[str], None],
) -> SoftTargetStore:
    """Open the teachers' stored logits, after missing and damaged ones are computed.

    Args:
        specs: By the teacher's number, from `store_specs` for the same teachers and data.
        ensemble: The teachers, on `device`.
        data: The data module.
        given: By the teacher's number, tables that were made elsewhere.
        options: Where the logits are kept.
        device: Where the teachers run.
        log_line: Called with a line about what happens.

    Raises:
        OSError: If they can't be written.
        ValueError: If a logit does not fit the number type.
    """
    entries = Entries(data)
    tables: dict[str, Table] = {}  # by their folder: a teacher may be named twice
    for number, spec in specs.items():
        if spec.key in tables:
            continue
        answer = TeacherPass(ensemble, number, entries, device)
        path = Path(options.folder) / spec.key
        folder = TeacherFolder(path, spec, ensemble.teachers[number].source, answer.classes)
        try:
            complete(folder, answer, log_line)
        except OSError as error:
            raise OSError(
                f"can't write soft targets into {options.folder}: {error.strerror or error}; set --model.store.folder "
                "elsewhere, or --model.soft_targets live; what is done stays"
            ) from error
        tables[spec.key] = Table(folder.table())
    by_number = {number: tables[spec.key] for number, spec in specs.items()} | dict(given or {})
    return SoftTargetStore([by_number[number] for number in range(len(ensemble))], entries)


class TeacherPass:
    """One teacher's answers to entries.

    Args:
        ensemble: The teachers, on `device`.
        number: Which of them answers.
        entries: The inputs.
        device: Where the teachers run.
    """

    def __init__(self, ensemble: FrozenEnsemble, number: int, entries: Entries, device: torch.device) -> None:
        self.ensemble, self.number, self.entries, self.device = ensemble, number, entries, device
        self._at_once = max(1, _PASS_BYTES // max(1, _size_of(entries.inputs(torch.arange(1), device))))
        self.classes = self._answer(torch.arange(1)).shape[1]

    def __call__(self, entries: Tensor) -> Tensor:
        """The logits, (entries, classes) float32, on the CPU."""
        return torch.cat([self._answer(part) for part in torch.split(entries, self._at_once)])

    def _answer(self, entries: Tensor) -> Tensor:
        inputs = move_data_to_device(self.entries.inputs(entries, self.device), self.device)
        return self.ensemble.answer(self.number, inputs).cpu()


def _size_of(inputs: Inputs) -> int:
    """Bytes of a batch's inputs."""
    return sum(part.nbytes for part in tensors_of(inputs))


def complete(folder: TeacherFolder, answer: TeacherPass, log_line: Callable[[str], None]) -> None:
    """Complete and check a teacher's folder; a complete one is only read.

    Several processes may do this at once, on one machine or file system: each computes blocks that no other one
    computes, and waits for the others. If the file system has no locks, each computes all missing blocks.

    Args:
        folder: The teacher's.
        answer: The teacher.
        log_line: Called with a line about what happens.

    Raises:
        OSError: If it can't be written, or the disk gives back something else than was written.
        ValueError: If a logit does not fit the number type.
    """
    if folder.is_whole() and not _table_differs(folder, answer):
        folder.blocks.drop()  # left over if a kill came between the record and this line
        return
    with locked(folder.lock) as is_locked:
        if not is_locked:
            log_line(f"no locks in {folder.path}, so another process may compute the same soft targets")
        if folder.has_record():
            _reopen(folder, answer, log_line)
    if not folder.has_record():
        _compute(folder, answer, log_line)
    folder.blocks.drop()
    if not folder.is_whole():
        raise OSError(f"{folder.path} reads back other bytes than were written")


def _reopen(folder: TeacherFolder, answer: TeacherPass, log_line: Callable[[str], None]) -> None:
    """Mark wrong blocks for a new computation, unless another process has computed them."""
    if not folder.is_whole():
        log_line(f"stored logits in {folder.path} are damaged; computing again what is wrong")
        folder.reopen(keep=True)
    elif _table_differs(folder, answer):
        log_line(f"stored logits in {folder.path} differ from what the teacher answers; computing them again")
        folder.reopen(keep=False)


def _compute(folder: TeacherFolder, answer: TeacherPass, log_line: Callable[[str], None]) -> None:
    """Compute the missing blocks, then join all blocks into the table."""
    with locked(folder.lock), folder.unless_finished():  # or one would delete what another has computed again
        folder.blocks.missing(log_line)
        _drop_blocks_of_other_code(folder, answer, log_line)
    done = len(folder.blocks.finished())
    log_line(
        f"computing soft targets: teacher {folder.source} on {len(answer.entries):,} {answer.entries.data.unit}, "
        f"{size_text(folder.spec.size(folder.classes))} in {folder.path}"
        + (f"; {done:,} of {folder.blocks.count:,} blocks are there" if done else "")
    )
    while not folder.has_record():
        missing = folder.blocks.missing(log_line)
        if not missing:
            with locked(folder.lock):
                if not folder.has_record():
                    folder.join()
            return
        computed = [_compute_block(folder, answer, block) for block in _with_progress(missing, folder.source)]
        if not any(computed):  # others compute them: wait for one
            with locked(folder.blocks.lock_of(missing[0])):
                pass


def _compute_block(folder: TeacherFolder, answer: TeacherPass, block: int) -> bool:
    """Compute a block unless another process computes or has computed it. Returns whether it was computed here."""
    with claimed(folder.blocks.lock_of(block)) as free:
        if not free or folder.blocks.has(block) or folder.has_record():
            return False
        folder.write(block, answer(folder.blocks.entries_of(block)))
        return True


def _table_differs(folder: TeacherFolder, answer: TeacherPass) -> bool:
    """Whether a sample differs from the teacher's logits. That happens only if code changed under the same weights."""
    entries = torch.randint(len(answer.entries), (_SAMPLE,), generator=torch.Generator().manual_seed(0))
    return bool(_differ(folder.table()[entries], answer(entries)).any())


def _drop_blocks_of_other_code(folder: TeacherFolder, answer: TeacherPass, log_line: Callable[[str], None]) -> None:
    """Delete blocks that were begun before the teacher's code changed; one entry of each is checked."""
    blocks = folder.blocks.finished()
    if not blocks:
        return
    row = folder.classes * folder.blocks.dtype.itemsize
    content = bytearray(b"".join(folder.blocks.read(block)[0][:row] for block in blocks))
    stored = torch.from_numpy(np.frombuffer(content, dtype=folder.blocks.dtype)).view(-1, folder.classes)
    live = answer(torch.cat([folder.blocks.entries_of(block)[:1] for block in blocks]))
    for block in torch.tensor(blocks)[_differ(stored, live)].tolist():
        log_line(f"block {block} in {folder.path} differs from what the teacher answers; it is computed again")
        folder.blocks.delete(block)


def _differ(stored: Tensor, live: Tensor) -> Tensor:
    """Which entries (entries,) differ from the teacher's answers in their largest logits, beyond rounding."""
    kept = live >= live.topk(min(3, live.shape[-1]), dim=-1).values[..., -1:]
    close = torch.isclose(stored.float(), live, rtol=_SAMPLE_TOLERANCE, atol=_SAMPLE_TOLERANCE)
    return (kept & ~close).any(dim=-1)


def _with_progress(blocks: Sequence[int], source: str) -> Iterator[int]:
    """The blocks, with a progress bar on a terminal."""
    yield from track(
        blocks,
        description=f"logits of {source}",
        transient=True,
        disable=not get_console().is_terminal,  # it would leave an empty line in a log
    )
