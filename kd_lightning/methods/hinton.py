"""Soft and hard loss: pure functions of logits, computed in log space and in float32 or better.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
https://arxiv.org/abs/1503.02531, section 2.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets

Averaging = Literal["arithmetic", "geometric"]
UNLABELLED = -1  # the label of an example whose class is unknown: it has a soft loss only
# In float32. Above, the soft targets of all classes differ by little more than rounding: of a student near its teacher,
# the gradient is wrong by 0.06 % at T = 1,000, by 5 % at 1e5, and it is 0 at 1e9. Below, T^2 takes the soft loss away.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-3, 1e3


def hard_loss(*, student_logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy between the labels and the student's softmax at T = 1, mean over the labelled examples.

    Args:
        student_logits: (batch, classes) float, before softmax.
        labels: (batch,) int64, class indices; -1 where unknown.
        smoothing: Share of each label that is spread evenly over all classes, in [0, 1). Source: Szegedy et al. 2016,
            "Rethinking the Inception Architecture for Computer Vision", section 7.

    Returns:
        Scalar, nats per labelled example; 0 with a gradient of 0 where no example has a label.

    Raises:
        ValueError: If a label has no logit; on CUDA the device raises its own error.
    """
    logits = at_least_float32(student_logits)
    try:
        loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing)
    except IndexError:
        check_labels(labels, classes=logits.shape[-1])
        raise
    if all_labelled(labels):
        return loss
    with torch.no_grad():  # without any label the mean is 0/0, its gradient 0; other NaN must stay
        return loss.masked_fill_((labels == UNLABELLED).all(), 0.0)


def all_labelled(labels: Tensor) -> bool:
    """Whether each example is known to have a label: a quick look that never waits for a GPU, where it is False.

    Args:
        labels: (batch,) int64.
    """
    return labels.device.type == "cpu" and len(labels) > 0 and int(labels.min()) >= 0


def check_labels(labels: Tensor, *, classes: int) -> None:
    """Refuse labels that are neither class indices nor -1. On a GPU this waits for the device.

    Args:
        labels: (batch,) int64, at least one.
        classes: Logits of the net.

    Raises:
        ValueError: If one is below -1, or has no logit.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < UNLABELLED or high >= classes:
        advice = "give examples without a label -1" if low < UNLABELLED else "set the net's classes"
        raise ValueError(
            f"labels must be class indices from 0 to {classes - 1}, as the net has {classes} logits, or -1 where "
            f"unknown, got {low} to {high}; {advice}"
        )


def soft_target_log_probs(
    *,
    teacher_logits: Tensor,
    temperature: float,
    averaging: Averaging = "arithmetic",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Log of the soft targets: the teachers' softmax at temperature T, averaged over the teachers.

    ``arithmetic`` is the weighted mean of the softened probabilities, ``geometric`` the softmax of the
    weighted mean of logits / T. T is applied before averaging.

    Args:
        teacher_logits: (teachers, batch, classes) or (batch, classes) float, before softmax.
        temperature: T in [0.001, 1000], no unit, divides the logits.
        averaging: How the teachers' softened distributions are combined.
        weights: One number >= 0 per teacher, scaled to sum 1; equal weights by default.

    Returns:
        (batch, classes) float32 (float64 for float64 input), log-probabilities.

    Raises:
        ValueError: If the temperature, the averaging, the weights or a shape is out of range.
    """
    check_temperature(temperature)
    if teacher_logits.ndim == 2:
        teacher_logits = teacher_logits.unsqueeze(0)  # (b, c) -> (1, b, c)
    if teacher_logits.ndim != 3:
        raise ValueError(
            f"teacher_logits must be (teachers, batch, classes) or (batch, classes), got {tuple(teacher_logits.shape)}"
        )
    scaled = at_least_float32(teacher_logits) / temperature
    # Classes first, (t, b, c) -> (c, t, b): along a short last dimension the CPU's softmax takes ten times as long.
    scaled = scaled.movedim(-1, 0).contiguous()
    teachers = scaled.shape[1]
    shares = teacher_shares(weights, teachers)
    match averaging:
        case "arithmetic":
            log_probs = F.log_softmax(scaled, dim=0)
            if weights is None:
                return log_probs.logsumexp(dim=1).sub_(math.log(teachers)).T
            return (log_probs + scaled.new_tensor(shares).log().view(1, -1, 1)).logsumexp(dim=1).T
        case "geometric":
            return F.log_softmax((scaled * scaled.new_tensor(shares).view(1, -1, 1)).sum(dim=1), dim=0).T
        case _:
            raise ValueError(f"averaging must be 'arithmetic' or 'geometric', got {averaging!r}")


def soft_targets(
    *,
    teacher_logits: Tensor,
    temperature: float,
    averaging: Averaging = "arithmetic",
    weights: Sequence[float] | None = None,
) -> SoftTargets:
    """Soften and average the teachers' logits; arguments and errors are those of `soft_target_log_probs`."""
    log_probs = soft_target_log_probs(
        teacher_logits=teacher_logits, temperature=temperature, averaging=averaging, weights=weights
    )
    return SoftTargets(log_probs, temperature)


def soft_loss(*, student_logits: Tensor, targets: SoftTargets) -> Tensor:
    """T^2 * KL(soft targets || student's softmax at T), mean over the batch.

    T^2 keeps the gradient's size comparable with the hard loss's when T changes (section 2). The gradient
    equals that of T^2 times the cross-entropy with soft targets; KL is zero at a perfect match.

    Args:
        student_logits: (batch, classes) float, before softmax.
        targets: From `soft_targets`.

    Returns:
        Scalar, T^2 * KL with KL in nats per example.

    Raises:
        ValueError: If a shape is out of range.

    Example:
        >>> targets = soft_targets(teacher_logits=teacher(images), temperature=4.0)
        >>> loss = soft_loss(student_logits=student(images), targets=targets)
    """
    check_same_shape(student_logits, targets)
    divergence: Tensor = _Divergence.apply(at_least_float32(student_logits), targets.log_probs, targets.temperature)
    return targets.temperature**2 * divergence


def soft_cross_entropy(*, student_logits: Tensor, targets: SoftTargets) -> Tensor:
    """Cross-entropy between the soft targets and the student's softmax at T, mean over the batch, without T^2.

    This is the form in which the paper states the soft loss; it is the KL of `soft_loss` plus the entropy of
    the soft targets. Arguments and errors are those of `soft_loss`.

    Returns:
        Scalar, nats per example.
    """
    check_same_shape(student_logits, targets)
    student_log_probs = F.log_softmax(at_least_float32(student_logits) / targets.temperature, dim=-1)
    return -(targets.log_probs.exp() * student_log_probs).sum() / len(student_logits)


class KL(SoftLoss):
    """The soft loss of Hinton et al. 2015, `soft_loss` as a class: T^2 * KL(soft targets || student at T).

    On MNIST the paper has T = 20, and T of 2.5 to 4 for a student of 30 units.

    Example:
        >>> loss = KL()(student_logits, targets, labels)
    """

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute `soft_loss`, with its arguments and errors; labels are not used."""
        return soft_loss(student_logits=student_logits, targets=targets)


def check_same_shape(student_logits: Tensor, targets: SoftTargets) -> None:
    """Refuse logits of another shape than the soft targets'.

    Raises:
        ValueError: If the shapes differ.
    """
    if student_logits.shape != targets.log_probs.shape:
        raise ValueError(
            f"student and teachers must give logits of one shape (batch, classes), "
            f"got student {tuple(student_logits.shape)} and teachers {tuple(targets.log_probs.shape)}; "
            "map the classes of a teacher that has others with kd_lightning.Teacher(net, classes=...)"
        )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature at which the soft loss is meaningless.

    Raises:
        ValueError: If it is out of range.
    """
    if not LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE:
        raise ValueError(
            f"temperature must be from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}, got {temperature}: with a "
            "higher one float32 can't tell the soft targets apart, with a lower one the soft loss vanishes"
        )


def teacher_shares(weights: Sequence[float] | None, teachers: int) -> list[float]:
    """Each teacher's share in the average, summing to 1.

    Args:
        weights: One number >= 0 per teacher, not all 0; None for equal shares.
        teachers: How many teachers there are.

    Raises:
        ValueError: If the count or a value is out of range.
    """
    if weights is None:
        return [1 / teachers] * teachers
    if len(weights) != teachers:
        raise ValueError(f"teacher weights must be one number per teacher, got {len(weights)} for {teachers} teachers")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
        raise ValueError(f"teacher weights must be finite, >= 0 and not all 0, got {list(weights)}")
    return [w / sum(weights) for w in weights]


class _Divergence(torch.autograd.Function):
    """KL with its gradient by equation 2 of the paper, (q - p) / T; one backward operation saves 0.06 ms."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, target_log_probs: Tensor, temperature: float) -> Tensor:
        student_log_probs = F.log_softmax(student_logits / temperature, dim=-1)
        targets = target_log_probs.exp()
        ctx.save_for_backward(student_log_probs, targets)
        ctx.temperature = temperature
        return (targets * (target_log_probs - student_log_probs)).sum() / len(student_logits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student_log_probs, targets = ctx.saved_tensors
        slope = student_log_probs.exp().sub_(targets)
        return slope.mul_(gradient / (ctx.temperature * len(slope))), None, None


def at_least_float32(numbers: Tensor) -> Tensor:
    """Logits or activations in float32 where they have a shorter type: soft targets consist of small differences."""
    return numbers.float() if numbers.dtype in (torch.float16, torch.bfloat16) else numbers
