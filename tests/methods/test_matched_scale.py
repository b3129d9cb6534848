"""A soft loss at the scale of plain distillation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_lightning import (
    DIST,
    DKD,
    KL,
    NKD,
    JensenShannon,
    LogitMatching,
    MatchedScale,
    ReverseKL,
    SoftLoss,
    SoftTargets,
    Standardised,
    soft_targets,
)
from tests.methods.references import Array, central_differences, kl, softmax

RANDOM = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 8, 5, generator=RANDOM).unbind()
LABELS = torch.randint(5, (8,), generator=RANDOM)


class Loud(SoftLoss):
    """Plain distillation, a hundred times as large."""

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        loss: Tensor = 100 * KL()(student_logits, targets, labels)
        return loss


def _targets(logits: Tensor = TEACHER, temperature: float = 4.0) -> SoftTargets:
    return soft_targets(teacher_logits=logits, temperature=temperature)


def _gradient(loss: SoftLoss) -> Tensor:
    logits = STUDENT.clone().requires_grad_()
    loss(logits, _targets(), LABELS).backward()
    assert logits.grad is not None
    return logits.grad


def matching(z: Array, v: Array, t: float) -> tuple[float, Array]:
    apart = (z - z.mean(axis=-1, keepdims=True)) - (v - v.mean(axis=-1, keepdims=True))
    return float((apart**2).mean() / 2), apart / apart.size


def reverse(z: Array, v: Array, t: float) -> tuple[float, Array]:
    p, q = softmax(v / t), softmax(z / t)
    logs = np.log(q / p)
    return t**2 * kl(q, p), t * q * (logs - (q * logs).sum(axis=-1, keepdims=True)) / len(z)


@pytest.mark.parametrize(("loss", "formula"), [(LogitMatching(), matching), (ReverseKL(), reverse)])
@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(4, 3), (7, 10)])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_and_gradient_are_the_formulas_times_the_ratio_of_norms(
    loss: SoftLoss,
    formula: Callable[[Array, Array, float], tuple[float, Array]],
    t: float,
    shape: tuple[int, int],
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    students = torch.randn(2, *shape, generator=random, dtype=torch.float64)
    teachers = torch.randn(2, *shape, generator=random, dtype=torch.float64)
    matched, plain, other = MatchedScale(loss), 0.0, 0.0
    for student, teacher in zip(students, teachers, strict=True):
        value = matched(student.requires_grad_(), _targets(teacher, t), torch.zeros(shape[0], dtype=torch.int64))
        z, v = student.detach().numpy(), teacher.numpy()
        plain += float(np.linalg.norm(t * (softmax(z / t) - softmax(v / t)) / len(z)))
        other += float(np.linalg.norm(formula(z, v, t)[1]))
        assert value.item() == pytest.approx(plain / other * formula(z, v, t)[0], abs=1e-9, rel=1e-9)
        (gradient,) = torch.autograd.grad(value, student)
        expected = plain / other * central_differences(lambda x, v=v: formula(x, v, t)[0], z)  # type: ignore[misc]
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_a_loud_loss_is_plain_distillation_again() -> None:
    matched = MatchedScale(Loud())
    torch.testing.assert_close(_gradient(matched), _gradient(KL()))
    assert float(matched.logged()["soft_loss_scale"]) == pytest.approx(0.01)


def test_the_factor_is_not_rounded_to_float32() -> None:
    student, targets = STUDENT.double().requires_grad_(), _targets(TEACHER.double())
    matched = MatchedScale(Loud())
    value = matched(student, targets, LABELS)
    assert (matched.scale.dtype, matched.logged()["soft_loss_scale"].dtype) == (torch.float64, torch.float32)
    assert value.item() == pytest.approx(KL()(student, targets, LABELS).item(), rel=1e-12)
    assert MatchedScale(Loud())(STUDENT, _targets(), LABELS).dtype == torch.float32


@pytest.mark.parametrize("loss", [DKD(), DIST(), Standardised(), Standardised(DKD())])
def test_gradients_get_one_size(loss: SoftLoss) -> None:
    assert float(_gradient(MatchedScale(loss)).norm()) == pytest.approx(float(_gradient(KL()).norm()), rel=1e-5)


SOFT_LOSSES = pytest.mark.parametrize(
    "loss", [KL(), ReverseKL(), JensenShannon(), LogitMatching(), DKD(), DIST(), NKD(), Standardised()]
)


@SOFT_LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("t", [0.1, 1.0, 1000.0])
def test_finite_at_extremes(loss: SoftLoss, dtype: torch.dtype, t: float) -> None:
    teacher = torch.tensor([[1e4, -1e4, 0.0], [5.0, 5.0, 5.0]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 3.0], [1e4, 1e4, -1e4]], dtype=dtype, requires_grad=True)
    matched = MatchedScale(loss)
    value = matched(student, _targets(teacher, t), torch.tensor([0, 2]))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert int(matched.measured) == 1


def test_targets_are_prepared_as_the_other_loss_asks() -> None:
    loss = Standardised()
    prepared = _targets(loss.prepare(TEACHER.unsqueeze(0)))
    matched = MatchedScale(loss).eval()  # nothing is measured, the factor is 1
    torch.testing.assert_close(matched(STUDENT, _targets(), LABELS), loss(STUDENT, prepared, LABELS))


def test_the_factor_stays_after_the_first_training_batches() -> None:
    matched = MatchedScale(DKD(), batches=2)
    matched.eval()
    matched(STUDENT, _targets(), LABELS)
    assert float(matched.scale) == 1  # validation is not measured
    matched.train()
    scales = []
    for factor in (1.0, 2.0, 3.0):
        matched(factor * STUDENT, _targets(), LABELS)
        scales.append(float(matched.scale))
    assert scales[0] != scales[1] == scales[2]


def test_a_checkpoint_holds_the_factor() -> None:
    matched, again = MatchedScale(DKD()), MatchedScale(DKD())
    matched(STUDENT, _targets(), LABELS)
    again.load_state_dict(matched.state_dict())
    assert torch.equal(matched.scale, again.scale)
    assert int(again.measured) == 1


@pytest.mark.parametrize("loss", [Loud(), ReverseKL(), JensenShannon(), LogitMatching(), DKD(), DIST(), Standardised()])
def test_zero_where_the_student_equals_the_teacher(loss: SoftLoss) -> None:
    matched = MatchedScale(loss)
    value = matched(TEACHER.double(), _targets(TEACHER.double()), LABELS)
    assert torch.isfinite(matched.scale)
    assert value.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_without_a_finite_gradient_is_left_out(bad: float) -> None:
    matched = MatchedScale(Loud(), batches=2)
    matched(bad * STUDENT, _targets(), LABELS)
    assert int(matched.measured) == 0
    matched(STUDENT, _targets(), LABELS)
    assert float(matched.scale) == pytest.approx(0.01)


def test_measuring_leaves_no_gradient_behind() -> None:
    class Own(SoftLoss):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
            loss: Tensor = self.factor * KL()(student_logits, targets, labels)
            return loss

    matched = MatchedScale(Own())
    with torch.no_grad():
        matched(STUDENT, _targets(), LABELS)
    assert next(matched.parameters()).grad is None


def test_batches_are_checked() -> None:
    with pytest.raises(ValueError, match="batches of MatchedScale must be >= 1, got 0"):
        MatchedScale(KL(), batches=0)
