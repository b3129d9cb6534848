"""Logit standardisation: any soft loss, over logits that have mean 0 and deviation 1."""

from torch import Tensor

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import KL, at_least_float32


class Standardised(SoftLoss):
    """Another soft loss over (logits - mean) / deviation of each example, of student and teachers alike.

    The student then need not match the teachers' scale, and T means the same for every example.
    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", https://arxiv.org/abs/2403.01427,
    algorithm 1; the official command has T = 2 and weights of 9 and 0.1 for soft and hard loss.

    Args:
        loss: The soft loss; KL by default.

    Example:
        >>> loss = Standardised(DKD())(student_logits, targets, labels)
    """

    def __init__(self, loss: SoftLoss | None = None) -> None:
        super().__init__()
        self.loss = loss or KL()

    @property
    def name(self) -> str:
        """The other loss's, after `standardised_`."""
        return f"standardised_{self.loss.name}"

    def prepare(self, teacher_logits: Tensor) -> Tensor:
        """Standardise the teachers' logits.

        Args:
            teacher_logits: (teachers, batch, classes) float, before softmax.
        """
        return self.loss.prepare(standardised(teacher_logits))

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the other loss, a scalar; errors are its own.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: (batch,) int64, class indices.
        """
        loss: Tensor = self.loss(standardised(student_logits), targets, labels)
        return loss


def standardised(logits: Tensor) -> Tensor:
    """Logits less their mean, divided by their standard deviation over the classes; 0 where all are equal.

    Args:
        logits: (..., classes) float, before softmax.
    """
    logits = at_least_float32(logits)
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (logits.std(dim=-1, keepdim=True) + 1e-7)
