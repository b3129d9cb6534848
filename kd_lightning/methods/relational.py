"""Relational distillation: distances and angles between examples must be those of the teacher.

Source: Park et al. 2019, "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068, equations 5 to 9.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import FeatureLoss
from kd_lightning.methods.hinton import at_least_float32


class Relational(FeatureLoss):
    """Huber loss over the distances of all pairs of examples, and over the angles of all triples.

    Distances are divided by their mean over the batch. The activations' shapes may differ. The angles take batch^3
    numbers of memory, and none where their factor is 0.

    Args:
        student: Path of the student's module whose output is compared.
        teacher: Path of the teacher's module.
        weight: Factor of this term in the loss, >= 0.
        distance_weight: Factor of the distances within the term, >= 0; the paper's is 25.
        angle_weight: Factor of the angles within the term, >= 0; the paper's is 50.

    Example:
        >>> term = Relational(student="3", teacher="3")
    """

    def __init__(
        self, student: str, teacher: str, weight: float = 1.0, distance_weight: float = 25.0, angle_weight: float = 50.0
    ) -> None:
        super().__init__(student, teacher, weight)
        if min(distance_weight, angle_weight) < 0:
            raise ValueError(f"Relational's weights must be >= 0, got {distance_weight} and {angle_weight}")
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the term, a scalar.

        Args:
            student: (batch, ...) float.
            teacher: (batch, ...) float.
        """
        of_student, of_teacher = (
            at_least_float32(each).flatten(1) for each in (student, teacher)
        )  # (b, ...) -> (b, width)
        loss = self.distance_weight * F.smooth_l1_loss(_distances(of_student), _distances(of_teacher))
        if self.angle_weight > 0:
            loss = loss + self.angle_weight * F.smooth_l1_loss(_angles(of_student), _angles(of_teacher))
        return loss


def _distances(rows: Tensor) -> Tensor:
    """Distance of each pair, divided by the mean over unequal pairs, (batch, batch)."""
    squares = (rows.unsqueeze(0) - rows.unsqueeze(1)).square().sum(dim=-1)
    apart = squares > 0
    # The root of 0 has no gradient: keep it away from there.
    distances = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
    return distances / distances[apart].mean() if bool(apart.any()) else distances


def _angles(rows: Tensor) -> Tensor:
    """Cosine of the angle at each example between two others, (batch, batch, batch)."""
    differences = F.normalize(rows.unsqueeze(0) - rows.unsqueeze(1), dim=-1)  # (b, b, width)
    return differences @ differences.transpose(1, 2)
