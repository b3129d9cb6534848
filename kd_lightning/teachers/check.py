"""Checks of the teachers before the first step: do they fit the student, and are they better than chance?"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.data.order import OrderedLoader
from kd_lightning.data.transfer_data import data_of, on_device, transfer_data, unit_of
from kd_lightning.methods.hinton import check_labels
from kd_lightning.metrics.classification import no_better_than_chance
from kd_lightning.nets.adapted import AdaptedNet
from kd_lightning.nets.description import in_eval_mode
from kd_lightning.runs.texts import counted
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.loading import teacher_checkpoints
from kd_lightning.teachers.named import Teacher

# Batches of training images that the teachers are checked on where there is no validation split.
CHECK_BATCHES = 20


@torch.no_grad()
def check_teachers(
    student: LightningModule,
    ensemble: FrozenEnsemble,
    records: Sequence[dict[str, Any]],
    *,
    must_beat_chance: bool = True,
) -> int:
    """Count each teacher's errors on the validation split, or on some training images where there is none.

    Args:
        student: The module that is about to train.
        ensemble: Its teachers.
        records: The entries of teachers.json; errors, examples and split are added.
        must_beat_chance: Whether a teacher that is no better than chance is refused.

    Returns:
        The number of classes of student and teachers.

    Raises:
        ValueError: If a teacher is no better than chance and must be, student and teachers differ in classes, or there
            is no data.
    """
    trainer = student.trainer
    split, batches = _check_batches(trainer)
    errors = torch.zeros(len(ensemble), dtype=torch.int64, device=student.device)
    label_counts: Tensor | None = None
    for inputs, labels, *_ in map(Batch.of, batches):
        logits = ensemble(inputs)  # (teachers, batch, classes)
        if label_counts is None:
            check_classes(student, inputs, classes=logits.shape[-1])
            some_inputs = inputs
            label_counts = torch.zeros(logits.shape[-1], dtype=torch.int64, device=student.device)
        check_labels(labels, classes=len(label_counts))
        labelled = labels >= 0
        errors += (logits.argmax(dim=-1) != labels)[:, labelled].sum(dim=1)
        label_counts += torch.bincount(labels[labelled], minlength=len(label_counts))
    if label_counts is None:
        raise ValueError(f"there is no {split} batch to check the teachers on; check the data and the trainer's limits")
    errors, label_counts = sum_over_ranks(trainer, errors), sum_over_ranks(trainer, label_counts)
    for record, count, net in zip(records, errors.tolist(), ensemble.nets, strict=True):
        note_errors(
            record,
            int(count),
            label_counts,
            split=split,
            unit=unit_of(data_of(trainer)),
            advice="train it first, or check that it was trained with the same classes and normalisation (here it gets "
            f"inputs {_range(net, some_inputs)}; kd_lightning.Teacher gives it others)",
            must_beat_chance=must_beat_chance,
        )
    _note_leaks(trainer, ensemble.teachers, records)
    return len(label_counts)


def note_errors(
    record: dict[str, Any],
    errors: int,
    label_counts: Tensor,
    *,
    split: str,
    unit: str,
    advice: str,
    must_beat_chance: bool,
) -> None:
    """Log and record how many errors a teacher makes; only log it where no example has a label.

    Args:
        record: Its entry of teachers.json.
        errors: Misclassified examples.
        label_counts: (classes,) int64, how many examples of each class there were.
        split: Where they come from, training or validation.
        unit: What they are, in the plural.
        advice: Advice for the error about a teacher that is no better than chance.
        must_beat_chance: Whether such a teacher is refused.

    Raises:
        ValueError: If it is.
    """
    examples = int(label_counts.sum())
    if examples == 0:
        rank_zero_info(
            f"teacher {record['source']}: errors are not counted: none of the {split} {unit} that were looked at has a "
            "label"
        )
        return
    record |= {"errors": errors, "examples": examples, "split": split}
    found = f"{counted(errors, 'error')} on {examples:,} {split} {unit}"
    guesses = no_better_than_chance(errors, label_counts)
    if guesses and must_beat_chance:
        raise ValueError(
            f"teacher {record['source']} is no better than chance: {found}; {advice}; "
            "--model.teachers_must_beat_chance false lets it teach"
        )
    rank_zero_info(f"teacher {record['source']}: {found}{', no better than chance' if guesses else ''}")


def log_accuracies(student: LightningModule, records: Sequence[dict[str, Any]]) -> None:
    """Draw the first point of each teacher's line, its validation accuracy; `note_errors` has counted its errors."""
    if student.logger is not None and student.global_step == 0:
        accuracies = {
            f"teachers/{n}_accuracy": 1 - each["errors"] / each["examples"]
            for n, each in enumerate(records)
            if each.get("split") == "validation"
        }
        student.logger.log_metrics(accuracies, step=student.global_step)


def refuse_own_teacher(run: Path, teachers: object) -> None:
    """Refuse to start over in a folder that holds a teacher of the new run.

    Args:
        run: The run's folder.
        teachers: What the configuration or the module names, see `load_teachers`.

    Raises:
        FileExistsError: If there is one.
    """
    for pattern in _paths(teachers):
        with suppress(FileNotFoundError, ValueError):  # reported where the teachers are loaded
            for file in teacher_checkpoints(pattern):
                if run.resolve() in file.resolve().parents:
                    raise FileExistsError(
                        f"the teacher {file} lies in the run that is to be overwritten; choose another folder for the "
                        "new run"
                    )


def _paths(teachers: object) -> Iterator[str]:
    """The paths among the teachers of a configuration or a module, those of a `Teacher` too."""
    match teachers:
        case str() | Path():
            yield str(teachers)
        case list():
            for each in teachers:
                yield from _paths(each)
        case Namespace():
            yield from _paths(teachers.get("init_args.net"))
        case Teacher():
            yield from _paths(teachers.net)


def _check_batches(trainer: Trainer) -> tuple[str, Iterator[Any]]:
    """Name of the split that the teachers are checked on, and its batches on the device."""
    validation = validation_batches(trainer)
    return ("training", training_batches(trainer)) if validation is None else ("validation", validation)


def validation_batches(trainer: Trainer) -> Iterator[Any] | None:
    """The batches that validate the student, on the device; None where there are none."""
    loaders = trainer.val_dataloaders
    if loaders is None or not sum(trainer.num_val_batches):
        return None
    listed = loaders if isinstance(loaders, list) else [loaders]
    limits = [None if math.isinf(limit) else int(limit) for limit in trainer.num_val_batches]
    return _validating(trainer, chain.from_iterable(map(islice, listed, limits)))


def _validating(trainer: Trainer, batches: Iterable[Any]) -> Iterator[Any]:
    """Batches on the device; while they are made the trainer validates, as a data module's hooks may ask it."""
    trainer.validating = True
    try:
        yield from map(partial(on_device, trainer), batches)
    finally:
        trainer.training = True


def training_batches(trainer: Trainer) -> Iterator[Any]:
    """Some training batches on the device."""
    source: Any = trainer.train_dataloader  # Any: ours, or whatever the user's data module gives
    if isinstance(source, OrderedLoader):
        source = source.from_start()  # the one that trains stays put
    return map(partial(on_device, trainer), islice(source or (), CHECK_BATCHES))


def _range(net: nn.Module, inputs: Inputs) -> str:
    """The range of a teacher's inputs, after its own adapter."""
    own = net.inputs(inputs) if isinstance(net, AdaptedNet) else inputs
    numbers = [float(bound) for tensor in tensors_of(own) for bound in tensor.aminmax()]
    return f"from {min(numbers):.2g} to {max(numbers):.2g}"


def check_classes(student: LightningModule, inputs: Inputs, *, classes: int) -> None:
    """Refuse teachers that have other classes than the student.

    Raises:
        ValueError: If they do.
    """
    if not is_overridden("forward", student):
        return  # a user's own module may do without; the first step compares
    with in_eval_mode(student):
        logits = student(student.trainer.precision_plugin.convert_input(inputs))
    if isinstance(logits, Tensor) and logits.shape[-1] != classes:
        raise ValueError(
            f"student and teachers must agree about the classes, got {logits.shape[-1]} of the student and "
            f"{classes} of the teachers; map theirs with kd_lightning.Teacher(net, classes=...)"
        )


def sum_over_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """Add up a count of all processes."""
    total: Tensor = trainer.strategy.reduce(values, reduce_op="sum")
    return total


def _note_leaks(trainer: Trainer, teachers: Sequence[LoadedTeacher], records: Sequence[dict[str, Any]]) -> None:
    """Warn of each teacher that was trained on images that this run validates on, or may have been."""
    data = transfer_data(data_of(trainer))
    for record, teacher in zip(records, teachers, strict=True):
        seen = None if data is None else data.val_rows_seen(teacher.data)
        record["trained_on_validation_images"] = seen
        if seen:
            rank_zero_info(
                f"teacher {record['source']} was trained on {seen} of the {unit_of(data)} that this run validates on: "
                "its validation errors look too good"
            )
        if data is not None and seen is None and teacher.data:
            rank_zero_info(
                f"it is not known whether teacher {record['source']} was trained on {unit_of(data)} that this run "
                "validates on"
            )
