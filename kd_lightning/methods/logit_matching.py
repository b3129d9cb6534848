"""Logit matching: the student's logits must equal the teachers'."""

from torch import Tensor

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class LogitMatching(SoftLoss):
    """||z - v||^2 / (2 * classes), mean over the batch; z and v are the logits of student and teachers less their mean.

    It has the scale of `KL`: T^2 * KL tends to it as T grows (Hinton et al. 2015, section 2.1). The temperature only
    matters for the average over several teachers.
    Source: Ba & Caruana 2014, "Do Deep Nets Really Need to be Deep?", https://arxiv.org/abs/1312.6184, equation 1. They
    neither centre the logits nor divide by the classes, and train without labels, as a soft weight of 1 does.

    Example:
        >>> loss = LogitMatching()(student_logits, targets, labels)
    """

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
        logits = at_least_float32(student_logits)
        centred = logits - logits.mean(dim=-1, keepdim=True)
        return (centred - targets.logits).square().mean() / 2
