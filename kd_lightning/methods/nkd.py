"""NKD: the teachers' confidence in the label, and the other classes among themselves."""

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.dkd import refuse_unlabelled, split_by_label
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class NKD(SoftLoss):
    """-p log q of the label at T = 1, plus other_weight * T^2 * cross-entropy among the other classes at T.

    p and q are the probabilities of teachers and student; those of the other classes are scaled to sum 1. It is a
    cross-entropy, so it is not 0 where the student equals the teacher. Of several teachers p is the average at T, taken
    back to T = 1.
    Source: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation", https://arxiv.org/abs/2303.13005,
    equation 7; its settings are T = 1 and an other weight of 1.5.

    Args:
        other_weight: Factor of the term over the other classes, >= 0.

    Example:
        >>> loss = NKD()(student_logits, targets, labels)
    """

    def __init__(self, other_weight: float = 1.5) -> None:
        super().__init__()
        if other_weight < 0:
            raise ValueError(f"NKD's other_weight must be >= 0, got {other_weight}")
        self.other_weight = other_weight

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: (batch,) int64, class indices.

        Raises:
            ValueError: If the shapes differ, a label is unknown, or there are fewer than three classes.
        """
        check_same_shape(student_logits, targets)
        refuse_unlabelled(labels, "NKD")
        if student_logits.shape[-1] < 3:
            raise ValueError(f"NKD needs three classes or more, got {student_logits.shape[-1]}; use KL")
        logits, temperature = at_least_float32(student_logits), targets.temperature
        of_label = labels.unsqueeze(-1)  # (b, 1)
        teacher_label = F.softmax(targets.logits, dim=-1).gather(-1, of_label)
        student_label = F.log_softmax(logits, dim=-1).gather(-1, of_label)
        _, teacher_others = split_by_label(targets.log_probs, labels)
        _, student_others = split_by_label(F.log_softmax(logits / temperature, dim=-1), labels)
        others = -(teacher_others.exp() * student_others).sum(dim=-1).mean()
        return -(teacher_label * student_label).mean() + self.other_weight * temperature**2 * others
