"""The two seams for a method of your own: a SoftLoss compares logits, a FeatureLoss compares activations."""

import re
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class SoftTargets(NamedTuple):
    """The soft targets of a batch: the teachers' softmax at temperature T, averaged over the teachers.

    Attributes:
        log_probs: (batch, classes) float32, log of the averaged probabilities.
        temperature: T > 0, no unit, that divided the teachers' logits and must divide the student's.
    """

    log_probs: Tensor
    temperature: float

    @property
    def logits(self) -> Tensor:
        """Logits whose softmax at T gives these targets, each example's mean 0, (batch, classes) float32.

        With one teacher these are its own logits minus their mean.
        """
        return self.temperature * (self.log_probs - self.log_probs.mean(dim=-1, keepdim=True))


def name_in_logs(term: "SoftLoss | FeatureLoss") -> str:
    """A term's name in logs: its class's name in lower case, words joined by underscores."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(term).__name__).lower()


class SoftLoss(nn.Module, ABC):
    """What compares the student's logits with the soft targets. The default is `KL`.

    Subclass it, write `forward`, and name the class under `soft_loss` in the YAML file. Parameters of its own train
    with the student and stay out of the exported net.

    Example:
        >>> class CrossEntropy(SoftLoss):
        ...     def forward(self, student_logits, targets, labels):
        ...         log_probs = (student_logits / targets.temperature).log_softmax(dim=-1)
        ...         return -targets.temperature**2 * (targets.log_probs.exp() * log_probs).sum(dim=-1).mean()
    """

    def prepare(self, teacher_logits: Tensor) -> Tensor:
        """Change the teachers' logits before temperature and averaging; as they are by default.

        Must not change while a run trains: stored logits are prepared once.

        Args:
            teacher_logits: (teachers, batch, classes) float, before softmax.

        Returns:
            The same shape.
        """
        return teacher_logits

    @property
    def name(self) -> str:
        """Name under which the loss is logged beside `soft_loss`: the class's in lower case, words joined by `_`."""
        return name_in_logs(self)

    def logged(self) -> dict[str, Tensor]:
        """Numbers that are logged with the loss, by name; none by default."""
        return {}

    @abstractmethod
    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar, in nats per example, T^2 included.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: (batch,) int64, class indices.
        """


class FeatureLoss(nn.Module, ABC):
    """A term of the loss that compares activations of the student with those of the teacher.

    Subclass it and write `forward`; write `build` too where the term needs layers of its own, such as a regressor
    between unequal widths. They train with the student and stay out of the exported net. Feature losses need one live
    teacher: stored logits have no activations.

    Args:
        student: Path of the student's module whose output is compared, as in `net.named_modules()`.
        teacher: Path of the teacher's module.
        weight: Factor of this term in the loss, >= 0.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(self, student: str, teacher: str, weight: float = 1.0) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"the weight of {type(self).__name__} must be >= 0, got {weight}")
        self.student = student
        self.teacher = teacher
        self.weight = weight

    @property
    def name(self) -> str:
        """Name of the term in logs: the class's name in lower case, words joined by underscores."""
        return name_in_logs(self)

    def build(self, student: Tensor, teacher: Tensor) -> None:  # most terms need nothing
        """Make layers that depend on the activations' shapes; called once, before training starts.

        Args:
            student: (1, ...) float, the student's activation for one example.
            teacher: (1, ...) float, the teacher's.
        """

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the term, a scalar, mean over the batch; `weight` is applied by the caller.

        Args:
            student: (batch, ...) float, the student's activation.
            teacher: (batch, ...) float, the teacher's, without gradient.
        """
