"""Similarity-preserving distillation: examples that are alike for the teacher must be alike for the student.

Source: Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation", https://arxiv.org/abs/1907.09682, equation 4.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import FeatureLoss
from kd_lightning.methods.hinton import at_least_float32


class SimilarityPreserving(FeatureLoss):
    """||G_s - G_t||^2 / batch^2, where G holds the dot products of all pairs of examples, each row scaled to norm 1.

    The activations' shapes may differ. The paper's weight is about 3,000.

    Args:
        student: Path of the student's module whose output is compared.
        teacher: Path of the teacher's module.
        weight: Factor of this term in the loss, >= 0.

    Example:
        >>> term = SimilarityPreserving(student="3", teacher="3", weight=3000.0)
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the term, a scalar.

        Args:
            student: (batch, ...) float.
            teacher: (batch, ...) float.
        """
        return (_alike(student) - _alike(teacher)).square().mean()


def _alike(activation: Tensor) -> Tensor:
    """Dot products of all pairs of examples, (batch, batch), each row scaled to norm 1."""
    rows = at_least_float32(activation).flatten(1)  # (b, ...) -> (b, width)
    with torch.autocast(rows.device.type, enabled=False):  # in float16 the products overflow
        return F.normalize(rows @ rows.T, dim=1)
