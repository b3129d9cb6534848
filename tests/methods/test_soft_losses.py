"""Every soft loss against its formula written plainly in numpy, by hand, at equality and at extremes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_lightning import (
    DIST,
    DKD,
    KL,
    NKD,
    JensenShannon,
    LogitMatching,
    ReverseKL,
    SoftLoss,
    SoftTargets,
    Standardised,
    soft_targets,
)
from tests.methods.references import Array, central_differences, kl, softmax

LABELS = torch.tensor([0, 3, 9, 1, 1, 5, 7])


def split(logits: Array, labels: Array) -> tuple[Array, Array]:
    p = softmax(logits)
    rest = [np.delete(row, label).sum() for row, label in zip(p, labels, strict=True)]
    others = [softmax(np.delete(row, label)) for row, label in zip(logits, labels, strict=True)]
    return np.stack([p[range(len(p)), labels], rest], axis=-1), np.stack(others)


def dkd(z: Array, v: Array, t: float, labels: Array) -> float:
    (p_target, p_others), (q_target, q_others) = split(v / t, labels), split(z / t, labels)
    return t**2 * (0.5 * kl(p_target, q_target) + 2 * kl(p_others, q_others))


def dist(z: Array, v: Array, t: float, labels: Array) -> float:
    p, q = softmax(v / t), softmax(z / t)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return float(t**2 * (2 * rows + 3 * columns))


def nkd(z: Array, v: Array, t: float, labels: Array) -> float:
    here = range(len(z)), labels
    (_, p_others), (_, q_others) = split(v / t, labels), split(z / t, labels)
    of_label = -(softmax(v)[here] * np.log(softmax(z)[here])).mean()
    return float(of_label + 1.5 * t**2 * -(p_others * np.log(q_others)).sum(axis=-1).mean())


def jensen_shannon(z: Array, v: Array, t: float, labels: Array) -> float:
    p, q = softmax(v / t), softmax(z / t)
    return t**2 * (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def matching(z: Array, v: Array, t: float, labels: Array) -> float:
    z, v = (x - x.mean(axis=-1, keepdims=True) for x in (z, v))
    return float(((z - v) ** 2).sum(axis=-1).mean() / 2 / z.shape[-1])


def standardised(z: Array, v: Array, t: float, labels: Array) -> float:
    z, v = ((x - x.mean(axis=-1, keepdims=True)) / (x.std(axis=-1, ddof=1, keepdims=True) + 1e-7) for x in (z, v))
    return t**2 * kl(softmax(v / t), softmax(z / t))


CASES: dict[str, tuple[SoftLoss, Callable[[Array, Array, float, Array], float]]] = {
    "kl": (KL(), lambda z, v, t, _: t**2 * kl(softmax(v / t), softmax(z / t))),
    "reverse": (ReverseKL(), lambda z, v, t, _: t**2 * kl(softmax(z / t), softmax(v / t))),
    "jensen-shannon": (JensenShannon(), jensen_shannon),
    "matching": (LogitMatching(), matching),
    "dkd": (DKD(target_weight=0.5, other_weight=2.0), dkd),
    "dist": (DIST(class_weight=2.0, batch_weight=3.0), dist),
    "nkd": (NKD(), nkd),
    "standardised": (Standardised(), standardised),
}
LOSSES = pytest.mark.parametrize("loss", [loss for loss, _ in CASES.values()], ids=list(CASES))


def _logits(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def _targets(loss: SoftLoss, teacher: Tensor, temperature: float) -> SoftTargets:
    return soft_targets(teacher_logits=loss.prepare(teacher.unsqueeze(0)), temperature=temperature)


def _labels(examples: int, classes: int) -> Tensor:
    return torch.randint(classes, (examples,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("t", [0.1, 0.5, 1.0, 4.0, 20.0, 100.0])
@pytest.mark.parametrize("shape", [(2, 3), (7, 10), (4, 100)])
@pytest.mark.parametrize("seed", [1, 3])
def test_the_value_is_the_formulas(name: str, t: float, shape: tuple[int, int], seed: int) -> None:
    loss, formula = CASES[name]
    teacher, student, labels = _logits(*shape, seed=seed), _logits(*shape, seed=seed + 1), _labels(*shape)
    value = loss(student, _targets(loss, teacher, t), labels)
    expected = formula(student.numpy(), teacher.numpy(), t, labels.numpy())
    assert value.item() == pytest.approx(expected, abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(3, 5), (4, 3)])
def test_the_gradient_is_that_of_the_formula(name: str, t: float, shape: tuple[int, int]) -> None:
    loss, formula = CASES[name]
    teacher, student, labels = _logits(*shape, spread=1), _logits(*shape, seed=1, spread=1), _labels(*shape)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, _targets(loss, teacher, t), labels), student)
    expected = central_differences(lambda z: formula(z, teacher.numpy(), t, labels.numpy()), student.detach().numpy())
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-6)


# NKD is a cross-entropy, and its label term pulls on where p = q < 1.
@pytest.mark.parametrize("loss", [CASES[name][0] for name in CASES if name != "nkd"])
def test_zero_where_the_student_equals_the_teacher(loss: SoftLoss) -> None:
    logits = _logits(7, 10).requires_grad_()
    value = loss(logits, _targets(loss, logits.detach(), 4.0), LABELS)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("t", [0.1, 1.0, 1000.0])
def test_finite_at_extremes(loss: SoftLoss, dtype: torch.dtype, t: float) -> None:
    teacher = torch.tensor([[1e4, -1e4, 0.0], [5.0, 5.0, 5.0]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 3.0], [1e4, 1e4, -1e4]], dtype=dtype, requires_grad=True)
    value = loss(student, _targets(loss, teacher, t), torch.tensor([0, 2]))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()


@LOSSES
def test_another_shape_is_refused(loss: SoftLoss) -> None:
    targets = soft_targets(teacher_logits=torch.zeros(2, 3), temperature=1.0)
    with pytest.raises(ValueError, match=r"one shape \(batch, classes\), got student \(2, 4\)"):
        loss(torch.zeros(2, 4), targets, torch.zeros(2, dtype=torch.int64))


def test_dkd_with_both_weights_as_plain_distillation_is_kl() -> None:
    """KL = KL(label or not) + (1 - p of the label) * KL(among the others), for one example."""
    teacher, student, label = _logits(1, 6), _logits(1, 6, seed=1), torch.tensor([2])
    targets = soft_targets(teacher_logits=teacher, temperature=3.0)
    rest = 1 - float(targets.log_probs[0, 2].exp())
    assert DKD(1.0, rest)(student, targets, label).item() == pytest.approx(KL()(student, targets, label).item())


def test_dkd_worked_by_hand() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    targets = soft_targets(teacher_logits=teacher, temperature=1.0)
    target = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    others = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    value = DKD(target_weight=1.0, other_weight=8.0)(student, targets, torch.tensor([0]))
    assert value.item() == pytest.approx(target + 8 * others)


def test_divergences_worked_by_hand() -> None:
    student = torch.tensor([[2 * math.log(3.0), 0.0]], dtype=torch.float64)  # at T = 2: 3/4 and 1/4
    level, opposite = torch.zeros_like(student), -student  # 1/2 and 1/2; 1/4 and 3/4
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    for loss, teacher in ((ReverseKL(), level), (JensenShannon(), opposite)):  # the mixture of opposites is level
        targets = soft_targets(teacher_logits=teacher, temperature=2.0)
        assert loss(student, targets, torch.tensor([0])).item() == pytest.approx(expected)


def test_logit_matching_worked_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0, 3.0, 6.0]])  # less the mean: -2, -1, 0, 3
    teacher = torch.tensor([[4.0, 0.0, 0.0, 0.0]])  # less the mean: 3, -1, -1, -1; differences -5, 0, 1, 4
    targets = soft_targets(teacher_logits=teacher, temperature=2.0)
    value = LogitMatching()(student, targets, torch.tensor([0]))
    assert value.item() == pytest.approx((25 + 0 + 1 + 16) / (2 * 4))


def test_dist_worked_by_hand() -> None:
    same = [0.1, 0.2, 0.3, 0.4]
    teacher = torch.tensor([[0.55, 0.25, 0.15, 0.05], same], dtype=torch.float64)
    student = torch.tensor([[0.35, 0.15, 0.25, 0.25], same], dtype=torch.float64)
    # Less the mean of 1/4: 0.3, 0, -0.1, -0.2 and 0.1, -0.1, 0, 0.
    over_classes = (0.03 / math.sqrt(0.14 * 0.02) + 1) / 2
    over_batch = (1 - 1 + 1 + 1) / 4  # two examples: 1 where both fall or both rise, or else -1
    targets = soft_targets(teacher_logits=2 * teacher.log(), temperature=2.0)
    value = DIST(class_weight=1.0, batch_weight=3.0)(2 * student.log(), targets, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(4 * ((1 - over_classes) + 3 * (1 - over_batch)))


def test_nkd_worked_by_hand() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    targets = soft_targets(teacher_logits=teacher, temperature=1.0)
    others = -0.5 * math.log(2 / 3) - 0.5 * math.log(1 / 3)
    value = NKD(other_weight=1.5)(student, targets, torch.tensor([0]))
    assert value.item() == pytest.approx(-0.5 * math.log(0.25) + 1.5 * others)


def test_standardised_worked_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)  # deviation 1: -1, 0, 1
    teacher = torch.tensor([[6.0, 2.0, 4.0]], dtype=torch.float64)  # deviation 2: 1, -1, 0
    value = Standardised()(student, _targets(Standardised(), teacher, 1.0), torch.tensor([0]))
    # Both softmaxes have one denominator, so KL is the teacher's mean of the differences 2, -1, -1.
    expected = (2 * math.e - 1 / math.e - 1) / (math.e + 1 / math.e + 1)
    assert value.item() == pytest.approx(expected)


def test_kl_tends_to_logit_matching_as_the_temperature_grows() -> None:
    teacher, student = _logits(5, 10), _logits(5, 10, seed=1)
    targets = soft_targets(teacher_logits=teacher, temperature=1000.0)
    expected = LogitMatching()(student, targets, LABELS).item()
    assert KL()(student, targets, LABELS).item() == pytest.approx(expected, rel=1e-2)


def test_jensen_shannon_is_at_most_log_two() -> None:
    teacher, student = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
    value = JensenShannon()(student, soft_targets(teacher_logits=teacher, temperature=1.0), torch.tensor([0]))
    assert value.item() == pytest.approx(math.log(2))


def test_dist_ignores_scale_and_level_of_probabilities() -> None:
    teacher = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]], dtype=torch.float64)
    student = 0.5 * teacher + 0.5 / 3  # the same order, less sure
    targets = soft_targets(teacher_logits=teacher.log(), temperature=1.0)
    assert DIST()(student.log(), targets, torch.tensor([0, 1])).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.1, 8.0, 1000.0])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (_logits(1, 10), _logits(1, 10, seed=1)),  # a batch of one: nothing varies over the batch
        (_logits(1, 10).expand(4, 10), _logits(4, 10, seed=1)),
        (torch.zeros(4, 10), torch.full((4, 10), 3.0)),
        (torch.zeros(4, 10), _logits(4, 10)),
        (_logits(4, 10), torch.zeros(4, 10)),
    ],
    ids=["one example", "equal examples", "both constant", "zero head", "constant teacher"],
)
def test_dist_of_constant_rows_has_a_small_gradient(
    student: Tensor, teacher: Tensor, t: float, dtype: torch.dtype
) -> None:
    student = student.to(dtype).clone().requires_grad_()
    value = DIST()(student, _targets(DIST(), teacher.to(dtype), t), LABELS[: len(student)])
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.abs().max() < t**2


def test_dist_of_constant_logits_is_that_of_no_correlation() -> None:
    student = torch.zeros(4, 10, requires_grad=True)
    value = DIST(class_weight=2.0, batch_weight=3.0)(student, _targets(DIST(), _logits(4, 10).float(), 8.0), LABELS[:4])
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == 64 * (2 + 3)
    assert not gradient.any()


def test_standardised_logits_of_another_scale_match() -> None:
    teacher = _logits(4, 6)
    loss = Standardised(ReverseKL())
    assert loss(5 * teacher + 2, _targets(loss, teacher, 2.0), LABELS[:4]).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", [DKD(), NKD()])
def test_two_classes_are_refused(loss: SoftLoss) -> None:
    targets = soft_targets(teacher_logits=torch.zeros(2, 2), temperature=1.0)
    with pytest.raises(ValueError, match="needs three classes or more, got 2; use KL"):
        loss(torch.zeros(2, 2), targets, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "build", [lambda: DKD(other_weight=-1), lambda: DIST(class_weight=-1), lambda: NKD(other_weight=-1)]
)
def test_negative_weights_are_refused(build: Callable[[], SoftLoss]) -> None:
    with pytest.raises(ValueError, match="must be >= 0, got"):
        build()


@pytest.mark.parametrize("loss", [DKD(), NKD(), Standardised(DKD())])
def test_losses_that_use_the_label_say_so_where_one_is_unknown(loss: SoftLoss) -> None:
    logits, labels = torch.zeros(2, 4), torch.tensor([1, -1])
    targets = soft_targets(teacher_logits=logits, temperature=2.0)
    with pytest.raises(
        ValueError, match=r"[DN]KD needs the label of every example, got unlabelled ones \(-1\); use KL"
    ):
        loss(logits, targets, labels)
