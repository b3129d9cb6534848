"""Decoupled knowledge distillation: the label's probability and the order of the other classes, weighted apart."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import at_least_float32, check_same_shape


class DKD(SoftLoss):
    """T^2 * (target_weight * KL(label or not) + other_weight * KL(among the other classes)), mean over the batch.

    Plain distillation weights the second term by the teachers' probability of all other classes, which is small where
    they are sure. Undefined for two classes: there is only one other.
    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", https://arxiv.org/abs/2203.08679, equation 7; its
    settings on CIFAR-100 are T = 4, a target weight of 1 and other weights of 2 to 8.

    Args:
        target_weight: Factor of the term over label or not, >= 0.
        other_weight: Factor of the term over the other classes, >= 0.

    Example:
        >>> loss = DKD(other_weight=8.0)(student_logits, targets, labels)
    """

    def __init__(self, target_weight: float = 1.0, other_weight: float = 8.0) -> None:
        super().__init__()
        if min(target_weight, other_weight) < 0:
            raise ValueError(f"DKD's weights must be >= 0, got {target_weight} and {other_weight}")
        self.target_weight = target_weight
        self.other_weight = other_weight

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar, T^2 times nats per example.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: (batch,) int64, class indices.

        Raises:
            ValueError: If the shapes differ, a label is unknown, or there are fewer than three classes.
        """
        check_same_shape(student_logits, targets)
        refuse_unlabelled(labels, "DKD")
        if student_logits.shape[-1] < 3:
            raise ValueError(f"DKD needs three classes or more, got {student_logits.shape[-1]}; use KL")
        student_log_probs = F.log_softmax(at_least_float32(student_logits) / targets.temperature, dim=-1)
        teacher_target, teacher_others = split_by_label(targets.log_probs, labels)
        student_target, student_others = split_by_label(student_log_probs, labels)
        target = F.kl_div(student_target, teacher_target, log_target=True, reduction="batchmean")
        others = F.kl_div(student_others, teacher_others, log_target=True, reduction="batchmean")
        return targets.temperature**2 * (self.target_weight * target + self.other_weight * others)


def refuse_unlabelled(labels: Tensor, method: str) -> None:
    """Refuse a batch in which a label is unknown. On a GPU this waits for the device, as `split_by_label` does.

    Args:
        labels: (batch,) int64.
        method: The class that needs them.

    Raises:
        ValueError: If a label is below 0.
    """
    if bool((labels < 0).any()):
        raise ValueError(f"{method} needs the label of every example, got unlabelled ones (-1); use KL")


def split_by_label(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of label and not label, and those of the other classes among themselves.

    Args:
        log_probs: (batch, classes) float.
        labels: (batch,) int64, none unknown.

    Returns:
        (batch, 2) and (batch, classes - 1) float; each row's probabilities sum to 1.
    """
    is_label = F.one_hot(labels, log_probs.shape[-1]).bool()
    others = log_probs[~is_label].view(len(labels), -1)  # (b, c) -> (b, c - 1)
    rest = others.logsumexp(dim=-1, keepdim=True)  # (b, 1)
    return torch.cat([log_probs[is_label].unsqueeze(-1), rest], dim=-1), others - rest
