"""Teachers as a user names them: paths, modules, and `Teacher` for one that differs from the student."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from kd_lightning.nets.normalize import layers_to_set


class Teacher:
    """A teacher with its own inputs, classes, weights file or share in the average.

    It stands in `teachers` wherever a path or a module does. Its files are read when a fit begins.

    Args:
        net: A net that maps inputs to logits (batch, its classes); or a run's folder, a checkpoint, or a glob of
            either.
        weights: A state dict of `net`, written by torch.save or as safetensors' .safetensors; only where `net` is a
            net.
        inputs: A module, or several one after the other, that make the teacher's inputs from a batch's:
            `kd_lightning.Pick`, or transforms that take whole batches, such as Resize, RGB and Normalize of
            torchvision.transforms.v2.
        classes: For each class of the student, which of the teacher's classes it is: its index, or a list of indices
            where several of them are one. Their probabilities at T = 1 are added: the logit that the student sees is
            the log-sum-exp of theirs, which the temperature then divides.
        weight: Share in the average, >= 0.

    Raises:
        ValueError: If weights are given for a path, or a `Normalize` among the inputs has no mean and deviation.

    Example:
        >>> cats = Teacher(
        ...     resnet18(), weights="resnet18.pth", inputs=[v2.Resize(224), v2.Normalize(mean, std)], classes=[281, 282]
        ... )
        >>> module = DistillModule(student=net, teachers=["runs/teacher", cats])
    """

    def __init__(
        self,
        net: str | Path | nn.Module,
        weights: str | Path | None = None,
        inputs: nn.Module | list[nn.Module] | None = None,
        classes: list[int | list[int]] | None = None,
        weight: float = 1.0,
    ) -> None:
        if weights is not None and not isinstance(net, nn.Module):
            raise ValueError(f"weights {weights} need a net to be loaded into, got the path {net}, which has its own")
        before = inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]
        if any(list(layers_to_set(module)) for module in before):
            raise ValueError(
                "Normalize in a teacher's inputs needs mean and std, got none: only those of the net that trains are "
                "measured; give the ones that the teacher was trained with"
            )
        self.net = net
        self.weights = weights
        self.inputs = inputs
        self.classes = classes
        self.weight = weight


NamedTeacher = str | nn.Module | Teacher
TeacherSpec = os.PathLike[str] | NamedTeacher | Iterable[os.PathLike[str] | NamedTeacher]


def listed_teachers(teachers: TeacherSpec) -> list[NamedTeacher]:
    """The paths, modules and `Teacher`s that were given, one by one.

    A module is one teacher, even where it is iterable as nn.Sequential is; only an nn.ModuleList counts as a list.

    Raises:
        ValueError: If something else was given.
    """
    whole = isinstance(teachers, nn.Module) and not isinstance(teachers, nn.ModuleList)
    given: object = [teachers] if whole or isinstance(teachers, str | os.PathLike | Teacher) else teachers
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise ValueError(f"teachers must be paths, modules or a list of them, got {type(given).__name__}")
    listed = [os.fspath(teacher) if isinstance(teacher, os.PathLike) else teacher for teacher in given]
    for teacher in listed:
        if not isinstance(teacher, str | nn.Module | Teacher):
            raise ValueError(f"each teacher must be a path or a module, got {type(teacher).__name__} {teacher!r}")
    return listed


def refuse_shared_weights(student: nn.Module, teachers: Sequence[NamedTeacher]) -> None:
    """Refuse a teacher whose weights would change while the student trains.

    Raises:
        ValueError: If a teacher is the student itself, or shares parameters with it.
    """
    trained = {_place(parameter) for parameter in student.parameters()} - {0}
    for number, teacher in enumerate(teachers):
        net = teacher.net if isinstance(teacher, Teacher) else teacher
        if not isinstance(net, nn.Module):
            continue
        shared = [name for name, parameter in net.named_parameters() if _place(parameter) in trained]
        if shared:
            whole = net is student or len(shared) == len(list(net.parameters()))
            what = "the student is its own teacher" if whole else f"teacher {number} shares {shared} with the student"
            raise ValueError(
                f"{what}: expected a teacher that stays as it is while the student trains; "
                "pass copy.deepcopy(net) for one of them"
            )


def _place(parameter: nn.Parameter) -> int:
    """Where a parameter's numbers lie, 0 where it has none yet."""
    return 0 if is_lazy(parameter) else parameter.untyped_storage().data_ptr()
