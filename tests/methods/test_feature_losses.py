"""Every feature loss against its formula written plainly in numpy, at equality and at extremes."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_lightning import AttentionTransfer, FeatureLoss, Relational, SimilarityPreserving

Array = np.ndarray


def _activations(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def _unit(rows: Array) -> Array:
    normed: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return normed


def attention(student: Array, teacher: Array) -> float:
    maps = [_unit((x**2).mean(axis=1).reshape(len(x), -1)) for x in (student, teacher)]
    return float(((maps[0] - maps[1]) ** 2).mean())


def similarity(student: Array, teacher: Array) -> float:
    grams = [_unit(x.reshape(len(x), -1) @ x.reshape(len(x), -1).T) for x in (student, teacher)]
    return float(((grams[0] - grams[1]) ** 2).sum() / len(student) ** 2)


def _huber(first: Array, second: Array) -> float:
    apart = np.abs(first - second)
    return float(np.where(apart < 1, 0.5 * apart**2, apart - 0.5).mean())


def relational(student: Array, teacher: Array) -> float:
    distances, angles = [], []
    for x in (student.reshape(len(student), -1), teacher.reshape(len(teacher), -1)):
        n = len(x)
        of_pairs = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        distances.append(of_pairs / of_pairs[of_pairs > 0].mean())
        cosines = np.zeros((n, n, n))
        for i, j, k in product(range(n), repeat=3):
            if j not in (i,) and k not in (i,):
                cosines[i, j, k] = _unit(x[j] - x[i]) @ _unit(x[k] - x[i])
        angles.append(cosines)
    return 25 * _huber(*distances) + 50 * _huber(*angles)


CASES: dict[str, tuple[FeatureLoss, Callable[[Array, Array], float], tuple[int, ...], tuple[int, ...]]] = {
    "attention": (AttentionTransfer("a", "b"), attention, (4, 3, 5, 5), (4, 6, 5, 5)),
    "similarity": (SimilarityPreserving("a", "b"), similarity, (6, 8), (6, 3, 2, 2)),
    "relational": (Relational("a", "b"), relational, (5, 7), (5, 3)),
}
NAMES = pytest.mark.parametrize("name", list(CASES))


@NAMES
def test_the_value_is_the_formulas(name: str) -> None:
    loss, formula, of_student, of_teacher = CASES[name]
    student, teacher = _activations(*of_student), _activations(*of_teacher, seed=1)
    assert loss(student, teacher).item() == pytest.approx(formula(student.numpy(), teacher.numpy()), rel=1e-4)


@NAMES
def test_zero_where_the_activations_are_equal(name: str) -> None:
    loss, _, shape, _ = CASES[name]
    student = _activations(*shape).requires_grad_()
    value = loss(student, student.detach())
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-5, rtol=0)


@NAMES
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_finite_at_extremes(name: str, scale: float) -> None:
    loss, _, of_student, of_teacher = CASES[name]
    student = (scale * _activations(*of_student)).requires_grad_()
    value = loss(student, scale * _activations(*of_teacher, seed=1))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()


@NAMES
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_activations_of_two_types_use_the_longer(name: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    loss, formula, of_student, of_teacher = CASES[name]
    student, teacher = _activations(*of_student).to(dtypes[0]), _activations(*of_teacher, seed=1).to(dtypes[1])
    value = loss(student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert (value.dtype, gradient.dtype) == (torch.float64, dtypes[0])
    assert value.item() == pytest.approx(formula(student.detach().numpy(), teacher.numpy()), rel=1e-6)


def test_similarity_under_autocast_does_not_overflow() -> None:
    student, teacher = 1e4 * _activations(6, 8).half(), 1e4 * _activations(6, 3, seed=1).half()
    loss = SimilarityPreserving("a", "b")
    with torch.autocast("cpu", torch.float16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))


@NAMES
def test_gradients_reach_the_student_only(name: str) -> None:
    loss, _, of_student, of_teacher = CASES[name]
    student = _activations(*of_student).requires_grad_()
    loss(student, _activations(*of_teacher, seed=1)).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_similarity_and_relations_ignore_rotation() -> None:
    student = _activations(6, 4)
    rotation = torch.linalg.qr(_activations(4, 4, seed=1)).Q
    for loss in (SimilarityPreserving("a", "b"), Relational("a", "b")):
        assert loss(student, student @ rotation).item() == pytest.approx(0, abs=1e-5)


def test_relations_without_angles_are_those_of_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = _activations(6, 4), _activations(6, 4, seed=1)
    whole, angles = Relational("a", "b")(student, teacher), Relational("a", "b", distance_weight=0)(student, teacher)
    monkeypatch.delattr("kd_lightning.methods.relational._angles")  # which would take batch^3 numbers
    distances = Relational("a", "b", angle_weight=0)(student, teacher)
    torch.testing.assert_close(distances, whole - angles)


def test_attention_of_another_size_is_resized_and_of_vectors_refused() -> None:
    loss = AttentionTransfer("a", "b")
    assert loss(_activations(2, 3, 8, 8), _activations(2, 5, 4, 4)).isfinite()
    with pytest.raises(ValueError, match=r"got \(1, 7\) at 'b' of the teacher"):
        loss.build(_activations(1, 3, 8, 8), _activations(1, 7))


def test_names_in_logs() -> None:
    assert AttentionTransfer("a", "b").name == "attention_transfer"
    assert SimilarityPreserving("a", "b").name == "similarity_preserving"
    assert Relational("a", "b").name == "relational"


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Relational's weights must be >= 0, got -1"):
        Relational("a", "b", distance_weight=-1)
