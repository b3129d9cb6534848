"""DIST: the student's probabilities must correlate with the teachers', along classes and along the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class DIST(SoftLoss):
    """T^2 * (class_weight * (1 - r over classes) + batch_weight * (1 - r over the batch)).

    r is Pearson's correlation of the student's with the teachers' probabilities at T: for each example over the
    classes, and for each class over the examples of the batch. It leaves the student free in scale and level.
    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", https://arxiv.org/abs/2205.10536,
    equations 7 to 10.

    Args:
        class_weight: Factor of the term over classes, >= 0.
        batch_weight: Factor of the term over the batch, >= 0.

    Example:
        >>> loss = DIST()(student_logits, targets, labels)
    """

    def __init__(self, class_weight: float = 1.0, batch_weight: float = 1.0) -> None:
        super().__init__()
        if min(class_weight, batch_weight) < 0:
            raise ValueError(f"DIST's weights must be >= 0, got {class_weight} and {batch_weight}")
        self.class_weight = class_weight
        self.batch_weight = batch_weight

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: Not used.

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(student_logits, targets)
        student = F.softmax(at_least_float32(student_logits) / targets.temperature, dim=-1)
        teachers = targets.log_probs.exp()
        over_classes = 1 - correlation(student, teachers).mean()
        over_batch = 1 - correlation(student.T, teachers.T).mean()
        loss: Tensor = self.class_weight * over_classes + self.batch_weight * over_batch
        return targets.temperature**2 * loss


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each row with the same row of the other, (rows,); 0, without gradient, of constant rows.

    Args:
        first: (rows, columns) float.
        second: (rows, columns) float.
    """
    return (_unit_deviations(first) * _unit_deviations(second)).sum(dim=-1)


def _unit_deviations(rows: Tensor) -> Tensor:
    """Each row less its mean, scaled to norm 1; zeros where the row is constant but for rounding."""
    precision = torch.finfo(rows.dtype)
    deviations = rows - rows.mean(dim=-1, keepdim=True)
    norms = deviations.norm(dim=-1, keepdim=True)
    # The gradient has 1 / norm^2: at tiny^0.4 this leaves a factor of 1e8 below overflow in float32.
    smallest = (100 * precision.eps * rows.norm(dim=-1, keepdim=True)).clamp(min=precision.tiny**0.4)
    constant = norms <= smallest
    return torch.where(constant, 0.0, deviations / torch.where(constant, 1.0, norms))
