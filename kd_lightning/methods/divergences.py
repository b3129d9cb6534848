"""Other divergences between the soft targets and the student's softmax."""

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class ReverseKL(SoftLoss):
    """T^2 * KL(student's softmax at T || soft targets), mean over the batch.

    It punishes the student for probability where the teachers have none, so a small student keeps to the teachers' main
    answer. Source: Gu et al. 2024, "MiniLLM", https://arxiv.org/abs/2306.08543, section 2.1.

    Example:
        >>> loss = ReverseKL()(student_logits, targets, labels)
    """

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar, T^2 times nats per example.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: Not used.

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(student_logits, targets)
        student_log_probs = F.log_softmax(at_least_float32(student_logits) / targets.temperature, dim=-1)
        divergence = F.kl_div(targets.log_probs, student_log_probs, log_target=True, reduction="batchmean")
        return targets.temperature**2 * divergence
