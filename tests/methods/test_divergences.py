"""Other divergences against a plain numpy reference."""

import numpy as np
import pytest
import torch

from kd_lightning import KL, ReverseKL, soft_targets


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
def test_reverse_kl_agrees_with_its_formula(t: float) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (3 * torch.randn(7, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = ReverseKL()(student, soft_targets(teacher_logits=teacher, temperature=t), torch.zeros(7))
    p, q = _softmax(teacher.numpy() / t), _softmax(student.numpy() / t)
    assert loss.item() == pytest.approx(t**2 * (q * np.log(q / p)).sum(axis=1).mean(), abs=1e-9)


def test_reverse_kl_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    targets = soft_targets(teacher_logits=teacher, temperature=2.0)
    assert torch.autograd.gradcheck(
        lambda logits: ReverseKL()(logits, targets, torch.zeros(3)), student.requires_grad_()
    )


@pytest.mark.parametrize("loss", [KL(), ReverseKL()], ids=["kl", "reverse"])
def test_divergences_are_zero_at_equality_and_finite_at_extremes(loss: torch.nn.Module) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 3.0, 1e4]])
    for t in (0.1, 1.0, 1000.0):
        same = loss(logits, soft_targets(teacher_logits=logits, temperature=t), torch.zeros(2))
        assert same.item() == pytest.approx(0, abs=1e-4)
        student = logits.flip(0).half().requires_grad_()
        value = loss(student, soft_targets(teacher_logits=logits, temperature=t), torch.zeros(2))
        (gradient,) = torch.autograd.grad(value, student)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_another_shape_is_refused() -> None:
    targets = soft_targets(teacher_logits=torch.zeros(2, 3), temperature=1.0)
    with pytest.raises(ValueError, match=r"one shape \(batch, classes\), got student \(2, 4\)"):
        ReverseKL()(torch.zeros(2, 4), targets, torch.zeros(2))
