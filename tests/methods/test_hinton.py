"""Losses against a value worked by hand, an independent reference, and their limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_lightning.methods.hinton import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Averaging,
    hard_loss,
    soft_cross_entropy,
    soft_loss,
    soft_target_log_probs,
    soft_targets,
)
from tests.methods.references import Array, softmax


def _reference_targets(teachers: Array, t: float, averaging: str, weights: list[float] | None) -> Array:
    share = np.ones(len(teachers)) if weights is None else np.array(weights)
    share = (share / share.sum()).reshape(-1, 1, 1)
    if averaging == "arithmetic":
        mean: Array = (softmax(teachers / t) * share).sum(axis=0)
        return mean
    return softmax((teachers / t * share).sum(axis=0))


def _soft_loss(student: Tensor, teacher: Tensor, temperature: float, averaging: Averaging = "arithmetic") -> Tensor:
    targets = soft_targets(teacher_logits=teacher, temperature=temperature, averaging=averaging)
    return soft_loss(student_logits=student, targets=targets)


def _logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@pytest.mark.parametrize(
    ("t", "teachers", "averaging"),
    list(itertools.product([0.5, 1.0, 2.5, 20.0], [1, 2, 5], ["arithmetic", "geometric"])),
)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_gradients_agree_with_reference(
    t: float, teachers: int, averaging: Averaging, weighted: bool
) -> None:
    teacher, student = _logits(teachers, 7, 10), _logits(7, 10, seed=1).requires_grad_()
    weights = [float(number + 1) for number in range(teachers)] if weighted else None
    targets = soft_targets(teacher_logits=teacher, temperature=t, averaging=averaging, weights=weights)
    loss = soft_loss(student_logits=student, targets=targets)
    loss.backward()  # type: ignore[no-untyped-call]
    p = _reference_targets(teacher.numpy(), t, averaging, weights)
    q = softmax(student.detach().numpy() / t)
    assert loss.item() == pytest.approx(t**2 * (p * np.log(p / q)).sum(axis=1).mean(), abs=1e-9)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), t * (q - p) / 7, atol=1e-9)
    cross = soft_cross_entropy(student_logits=student, targets=targets)
    assert cross.item() == pytest.approx(-(p * np.log(q)).sum(axis=1).mean(), abs=1e-9)


def test_soft_loss_worked_by_hand() -> None:
    teacher = torch.tensor([[math.log(3.0) * 2, 0.0]], dtype=torch.float64)  # at T = 2: 3/4 and 1/4
    student = torch.zeros(1, 2, dtype=torch.float64)  # 1/2 and 1/2
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert soft_loss(
        student_logits=student, targets=soft_targets(teacher_logits=teacher, temperature=2)
    ).item() == pytest.approx(expected)


def test_soft_loss_is_zero_at_equality() -> None:
    logits = _logits(4, 10)
    assert soft_loss(
        student_logits=logits, targets=soft_targets(teacher_logits=logits, temperature=3)
    ).item() == pytest.approx(0, abs=1e-12)


def test_gradient_matches_logits_at_high_temperature() -> None:
    """Equation 4 of the paper: with zero-mean logits, T^2 times the gradient tends to (z - v) / N."""
    teacher, student = _logits(5, 10), _logits(5, 10, seed=1)
    teacher, student = (x - x.mean(dim=1, keepdim=True) for x in (teacher, student))
    student.requires_grad_()
    _soft_loss(student, teacher, 1e3).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 10 / 5, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("t", [0.1, 1.0, 20.0, 1000.0])
def test_no_nan_at_extremes(dtype: torch.dtype, t: float) -> None:
    teacher = torch.tensor([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 5.0]]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 3.0]], dtype=dtype, requires_grad=True)
    averages: tuple[Averaging, ...] = ("arithmetic", "geometric")
    for averaging in averages:
        loss = soft_loss(
            student_logits=student, targets=soft_targets(teacher_logits=teacher, temperature=t, averaging=averaging)
        )
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_no_gradient_reaches_a_zero_weight_teacher() -> None:
    teacher = _logits(2, 3, 4)
    one = soft_target_log_probs(teacher_logits=teacher, temperature=2, weights=[1.0, 0.0])
    torch.testing.assert_close(one, torch.log_softmax(teacher[0] / 2, dim=-1))


def test_hard_loss_is_cross_entropy_at_one() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert hard_loss(student_logits=logits, labels=torch.tensor([0])).item() == pytest.approx(-math.log(0.75))


def test_hard_loss_is_the_mean_over_labelled_examples() -> None:
    logits, labels = _logits(6, 4).requires_grad_(), torch.tensor([1, -1, 0, -1, -1, 3])
    loss = hard_loss(student_logits=logits, labels=labels)
    known = labels >= 0
    torch.testing.assert_close(loss, hard_loss(student_logits=logits[known], labels=labels[known]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[~known].any()
    assert gradient[known].all()


def test_hard_loss_without_any_label_is_zero_and_hides_no_other_nan() -> None:
    logits, unknown = _logits(3, 4).requires_grad_(), torch.full((3,), -1)
    loss = hard_loss(student_logits=logits, labels=unknown)
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
    assert hard_loss(student_logits=logits * math.nan, labels=torch.tensor([-1, 2, -1])).isnan()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e200, 1e9, 1e-9])
def test_temperature_is_checked(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be from 0\.001 to 1000, got "):
        _soft_loss(_logits(2, 3), _logits(2, 3), temperature)


@pytest.mark.parametrize("temperature", [LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE])
def test_float32_is_enough_at_the_ends_of_the_temperature_range(temperature: float) -> None:
    teacher = _logits(1, 50, 10)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        student = (teacher[0] + 0.1 * _logits(50, 10, seed=1)).to(dtype).requires_grad_()
        loss = _soft_loss(student, teacher.to(dtype), temperature)
        gradients.append(torch.autograd.grad(loss, student)[0].double())
    assert (gradients[0] - gradients[1]).norm() < 0.002 * gradients[0].norm()


def test_shapes_and_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        _soft_loss(_logits(2, 3), _logits(2, 4), 1)
    with pytest.raises(ValueError, match="must be \\(teachers, batch, classes\\)"):
        _soft_loss(_logits(2, 3), _logits(3), 1)
    with pytest.raises(ValueError, match="one number per teacher, got 1 for 2"):
        soft_target_log_probs(teacher_logits=_logits(2, 2, 3), temperature=1, weights=[1.0])
    with pytest.raises(ValueError, match="not all 0"):
        soft_target_log_probs(teacher_logits=_logits(2, 2, 3), temperature=1, weights=[0.0, 0.0])
    with pytest.raises(ValueError, match="averaging must be"):
        soft_target_log_probs(teacher_logits=_logits(2, 2, 3), temperature=1, averaging="mean")  # type: ignore[arg-type]


def test_label_smoothing_is_cross_entropy_with_softer_labels() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), torch.tensor([0, -1])
    log_probs = logits[0].log_softmax(dim=0)
    expected = -(0.9 * log_probs[0] + 0.1 * log_probs.mean())
    torch.testing.assert_close(hard_loss(student_logits=logits, labels=labels, smoothing=0.1), expected)
