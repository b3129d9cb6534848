"""Checks of files of logits before the first step: do they belong to these training examples?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from kd_lightning.data.batches import Batch
from kd_lightning.data.transfer_data import data_of, unit_of
from kd_lightning.methods.hinton import check_labels
from kd_lightning.teachers.check import (
    check_classes,
    check_teachers,
    log_accuracies,
    note_errors,
    sum_over_ranks,
    training_batches,
    validation_batches,
)
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.logits_file import LogitsFile, logits_files


def check_all(
    student: LightningModule,
    ensemble: FrozenEnsemble,
    records: Sequence[dict[str, Any]],
    *,
    must_beat_chance: bool = True,
) -> int:
    """Count the errors of all teachers, nets and files of logits; all else as in `check_teachers`."""
    files, classes = logits_files(ensemble), 0
    nets = [number for number in range(len(ensemble)) if number not in files]
    if nets:
        asked = ensemble if not files else FrozenEnsemble([ensemble.teachers[n] for n in nets], ensemble.precision)
        classes = check_teachers(student, asked, [records[n] for n in nets], must_beat_chance=must_beat_chance)
    if files:
        classes = check_files(student, files, records, must_beat_chance=must_beat_chance)
    log_accuracies(student, records)
    return classes


def check_files(
    student: LightningModule,
    files: Mapping[int, LogitsFile],
    records: Sequence[dict[str, Any]],
    *,
    must_beat_chance: bool = True,
) -> int:
    """Count the errors of files of logits on some training examples, and on the validation split where they hold it.

    Args:
        student: The module that is about to train.
        files: By the teacher's number, at least one.
        records: The entries of teachers.json of all teachers; errors, examples and split are added.
        must_beat_chance: Whether one that is no better than chance is refused.

    Returns:
        The number of classes of student and teachers.

    Raises:
        ValueError: If one is no better than chance and must be, or the student has other classes.
    """
    trainer = student.trainer
    unit, validates = unit_of(data_of(trainer)), validation_batches(trainer) is not None
    inputs = Batch.of(next(training_batches(trainer))).inputs
    for number, file in files.items():
        check_classes(student, inputs, classes=file.store.classes)
        splits = ["training", *(["validation"] if validates and file.has_val else [])]
        for split in splits:
            batches = training_batches(trainer) if split == "training" else validation_batches(trainer)
            errors, label_counts = _count_errors(file, batches or ())
            note_errors(
                records[number],
                int(sum_over_ranks(trainer, errors)),
                sum_over_ranks(trainer, label_counts),
                split=split,
                unit=unit,
                advice=f"check that its rows are the {split} rows in their order",
                must_beat_chance=must_beat_chance,
            )
        if validates and not file.has_val:
            rank_zero_info(
                f"teacher {file.path} holds no logits of the validation rows: val/loss is the hard loss, and there is "
                "no val/soft_loss"
            )
    return file.store.classes


def _count_errors(file: LogitsFile, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """How many labelled examples it gets wrong, and how many there are of each class."""
    wrong, counts = [], []
    for _, labels, rows, views in map(Batch.of, batches):
        check_labels(labels, classes=file.store.classes)
        logits = file.store.logits(rows, views)
        if logits is not None:
            labelled = labels >= 0
            wrong.append((logits[0].argmax(dim=-1) != labels)[labelled].sum())
            counts.append(torch.bincount(labels[labelled], minlength=file.store.classes))
    if not counts:
        raise ValueError(f"there is no batch to check {file.path} on; check the data and the trainer's limits")
    return torch.stack(wrong).sum(), torch.stack(counts).sum(dim=0)
