"""The frozen teachers and their logits."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kd_lightning.data.inputs import Inputs, mapped, tensors_of
from kd_lightning.methods.hinton import teacher_shares
from kd_lightning.nets.description import fingerprint, parameter_count
from kd_lightning.nets.logits import logits_of

Precision = Literal["float32", "bfloat16"]


class LoadedTeacher(NamedTuple):
    """One trained net and where it came from.

    Attributes:
        net: Maps a batch's inputs to logits (batch, classes); an AdaptedNet where they differ from the student's.
        source: Checkpoint or weights file, or the class of a net given as an object.
        data: The data it was trained on, from its checkpoint; empty if unknown.
        weight: Its share in the average.
    """

    net: nn.Module
    source: str
    data: dict[str, Any]
    weight: float = 1.0

    def record(self) -> dict[str, Any]:
        """The teacher's entry of teachers.json."""
        return {
            "source": self.source,
            "fingerprint": fingerprint(self.net),
            "parameters": parameter_count(self.net),
            "weight": self.weight,
        }


class FrozenEnsemble(nn.Module):
    """Teachers that never train: always in eval mode, without gradients.

    Args:
        teachers: At least one. Their nets are frozen in place; `load_teachers` makes copies.
        precision: Number type of their passes, whatever the student trains in. In bfloat16 the small differences
            that soft targets consist of are rounded.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, teachers: Sequence[LoadedTeacher], precision: Precision = "float32") -> None:
        super().__init__()
        if not teachers:
            raise ValueError("an ensemble needs at least one teacher, got none")
        self.teachers = list(teachers)
        self.nets = nn.ModuleList(teacher.net for teacher in teachers)
        self.precision = precision
        self.requires_grad_(requires_grad=False)
        self.train(mode=False)

    def __len__(self) -> int:
        """Number of teachers."""
        return len(self.nets)

    def train(self, mode: bool = True) -> "FrozenEnsemble":
        """Stay in eval mode."""
        return super().train(mode=False)

    @torch.no_grad()
    def answer(self, number: int, inputs: Inputs) -> Tensor:
        """One teacher's logits, (batch, classes) float32.

        Args:
            number: Which teacher.
            inputs: (batch, ...), as the teachers take them; of any floating type, maybe the student's.

        Raises:
            ValueError: If it does not take the inputs.
        """
        net, inputs = self.nets[number], _in_type_of(self.nets[number], inputs)
        with torch.autocast(tensors_of(inputs)[0].device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return logits_of(net, inputs, f"teacher {self.teachers[number].source}").float()

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> Tensor:
        """The teachers' logits, (teachers, batch, classes) float32.

        Args:
            inputs: A batch's, (batch, ...), from which adapted teachers make their own.

        Raises:
            ValueError: If the teachers disagree about the number of classes, or one does not take the inputs.
        """
        return stacked([self.answer(number, inputs) for number in range(len(self))])


def _in_type_of(net: nn.Module, inputs: Inputs) -> Inputs:
    """Floating inputs in the number type of a net's weights; a trainer's bf16-true makes them the student's."""
    dtype = next((weight.dtype for weight in net.parameters() if weight.is_floating_point()), None)
    if dtype is None:
        return inputs
    return mapped(inputs, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def stacked(logits: Sequence[Tensor]) -> Tensor:
    """Stack the logits of several teachers, (teachers, batch, classes).

    Args:
        logits: Of each, (batch, classes).

    Raises:
        ValueError: If the teachers disagree about the number of classes.
    """
    shapes = {tuple(member.shape) for member in logits}
    if len(shapes) > 1:
        raise ValueError(
            f"teachers must give logits of one shape (batch, classes), got {sorted(shapes)}; map the classes "
            "of one that has others with kd_lightning.Teacher(net, classes=...)"
        )
    return torch.stack(list(logits))


def weights_of(teachers: Sequence[LoadedTeacher], listed: Sequence[float] | None) -> Sequence[float] | None:
    """Each teacher's weight in the average; None where all are equal.

    Args:
        teachers: Each with the weight that `Teacher` gave it.
        listed: The value of `teacher_weights`; None if it is not given.

    Raises:
        ValueError: If both are given, or they are out of range.
    """
    own = None if all(teacher.weight == 1 for teacher in teachers) else [teacher.weight for teacher in teachers]
    if own is not None and listed is not None:
        raise ValueError(
            f"the teachers' weights must be given once, got teacher_weights {list(listed)} and {own} as the weight of "
            "each Teacher; leave one of them out"
        )
    weights = listed if own is None else own
    teacher_shares(weights, len(teachers))
    return weights


@runtime_checkable
class HasTeachers(Protocol):
    """A module that learns from teachers, as DistillModule does."""

    @property
    def teachers(self) -> FrozenEnsemble | None:
        """The live teachers; None without, or before they are loaded."""

    @property
    def teacher_records(self) -> list[dict[str, Any]]:  # Any: plain values
        """The entries of teachers.json."""


def teachers_of(module: object) -> FrozenEnsemble | None:
    """The live teachers of a module, None where it has none."""
    return module.teachers if isinstance(module, HasTeachers) else None
