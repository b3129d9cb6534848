"""Other divergences between the soft targets and the student's softmax."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class ReverseKL(SoftLoss):
    """T^2 * KL(student's softmax at T || soft targets), mean over the batch.

    It punishes the student for probability where the teachers have none, so a small student keeps to the teachers' main
    answer. Source: Gu et al. 2024, "MiniLLM", https://arxiv.org/abs/2306.08543, section 2.1; there it is taken over
    whole sequences of a language model, without T^2.

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


class JensenShannon(SoftLoss):
    """T^2 * JS(soft targets, student's softmax at T), mean over the batch.

    JS is the mean of both distributions' KL to their mixture, at most log 2. It is symmetric and bounded, so single
    wrong targets weigh less. Source: Lin 1991, "Divergence Measures Based on the Shannon Entropy", equation 4.1,
    which has no settings for distillation.

    Example:
        >>> loss = JensenShannon()(student_logits, targets, labels)
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
        mixture = torch.logaddexp(student_log_probs, targets.log_probs) - math.log(2)
        to_mixture = [
            F.kl_div(mixture, log_probs, log_target=True, reduction="batchmean")
            for log_probs in (student_log_probs, targets.log_probs)
        ]
        return targets.temperature**2 * sum(to_mixture, student_logits.new_zeros(())) / 2
