"""Every feature loss against its formula written plainly in numpy, at equality and at extremes."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_lightning import AttentionTransfer, FeatureLoss, Hints, Relational, SimilarityPreserving
from tests.methods.references import Array, central_differences


def _activations(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def _unit(rows: Array) -> Array:
    normed: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return normed


def _resized(pictures: Array, side: int) -> Array:
    """Means of equal blocks, (..., old, old) -> (..., side, side)."""
    block = pictures.shape[-1] // side
    means: Array = pictures.reshape(*pictures.shape[:-2], side, block, side, block).mean(axis=(-3, -1))
    return means


def attention(student: Array, teacher: Array) -> float:
    squares = _resized((student**2).mean(axis=1), teacher.shape[-1]), (teacher**2).mean(axis=1)
    maps = [_unit(x.reshape(len(x), -1)) for x in squares]
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


WEIGHTS, BIAS = _activations(3, 2, seed=7), _activations(3, seed=8)  # of the regressor from 2 channels to 3


def hints(student: Array, teacher: Array) -> float:
    predicted = np.einsum("oi,bi...->bo...", WEIGHTS.numpy(), student)
    predicted += BIAS.numpy().reshape(-1, *[1] * (student.ndim - 2))
    if student.ndim == 4:
        predicted = _resized(predicted, teacher.shape[-1])
    return float(((predicted - teacher) ** 2).mean())


def _hints(regressor: nn.Module) -> Hints:
    loss = Hints("a", "b")
    loss.regressor = regressor
    with torch.no_grad():
        for parameter, values in zip(regressor.parameters(), (WEIGHTS, BIAS), strict=True):
            parameter.copy_(values.view_as(parameter))
    return loss


# A new loss, its formula, and the shapes of the student's and the teacher's activation.
CASES: dict[
    str, tuple[Callable[[], FeatureLoss], Callable[[Array, Array], float], tuple[int, ...], tuple[int, ...]]
] = {
    "attention": (lambda: AttentionTransfer("a", "b"), attention, (4, 3, 5, 5), (4, 6, 5, 5)),
    "attention, resized": (lambda: AttentionTransfer("a", "b"), attention, (2, 3, 6, 6), (2, 2, 3, 3)),
    "similarity": (lambda: SimilarityPreserving("a", "b"), similarity, (6, 8), (6, 3, 2, 2)),
    "similarity of two": (lambda: SimilarityPreserving("a", "b"), similarity, (2, 3, 2, 2), (2, 5)),
    "relational": (lambda: Relational("a", "b"), relational, (5, 7), (5, 3)),
    "relational of pictures": (lambda: Relational("a", "b"), relational, (3, 2, 2, 2), (3, 4)),
    "hints": (lambda: _hints(nn.Linear(2, 3)), hints, (5, 2), (5, 3)),
    "hints of pictures": (lambda: _hints(nn.Conv2d(2, 3, 1)), hints, (2, 2, 3, 3), (2, 3, 3, 3)),
    "hints, resized": (lambda: _hints(nn.Conv2d(2, 3, 1)), hints, (2, 2, 4, 4), (2, 3, 2, 2)),
}
NAMES = pytest.mark.parametrize("name", list(CASES))


@NAMES
@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_value_is_the_formulas(name: str, seed: int, scale: float) -> None:
    build, formula, of_student, of_teacher = CASES[name]
    student = scale * _activations(*of_student, seed=seed).double()
    teacher = scale * _activations(*of_teacher, seed=seed + 1).double()
    expected = formula(student.numpy(), teacher.numpy())
    assert build().double()(student, teacher).item() == pytest.approx(expected, abs=1e-9, rel=1e-9)


@NAMES
def test_the_gradient_is_that_of_the_formula(name: str) -> None:
    build, formula, of_student, of_teacher = CASES[name]
    student, teacher = _activations(*of_student).double(), _activations(*of_teacher, seed=1).double()
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(build().double()(student, teacher), student)
    expected = central_differences(lambda x: formula(x, teacher.numpy()), student.detach().numpy())
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_attention_worked_by_hand() -> None:
    student = torch.tensor([[[[2.0, 0.0]]]])  # squares 4 and 0; map 1, 0
    teacher = torch.tensor([[[[6.0, 0.0]], [[0.0, 8.0]]]]).sqrt()  # mean squares 3 and 4; map 0.6, 0.8
    value = AttentionTransfer("a", "b")(student, teacher)
    assert value.item() == pytest.approx((0.4**2 + 0.8**2) / 2)


def test_similarity_worked_by_hand() -> None:
    student = torch.eye(2)  # dot products 1, 0 and 0, 1
    teacher = torch.tensor([[2.0, 0.0], [1.5, 1.75**0.5]])  # 4, 3 and 3, 4: rows 0.8, 0.6 and 0.6, 0.8
    value = SimilarityPreserving("a", "b")(student, teacher)
    assert value.item() == pytest.approx((0.2**2 + 0.6**2 + 0.6**2 + 0.2**2) / 2**2)


def test_relations_worked_by_hand() -> None:
    teacher = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # 3, 4, 5 of mean 4: 0.75, 1, 1.25
    student = torch.tensor([[0.0], [1.0], [-1.0]])  # 1, 1, 2 of mean 4/3: 0.75, 0.75, 1.5
    distances = 2 * (0 + 0.25**2 / 2 + 0.25**2 / 2) / 9  # each pair counts twice
    # Cosines at each example: 0, 0.6, 0.8 of the teacher; -1, 1, 1 of the student.
    angles = 2 * (1**2 / 2 + 0.4**2 / 2 + 0.2**2 / 2) / 27
    assert Relational("a", "b")(student, teacher).item() == pytest.approx(25 * distances + 50 * angles)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (AttentionTransfer("a", "b"), (4, 3, 5, 5)),
        (SimilarityPreserving("a", "b"), (6, 8)),
        (Relational("a", "b"), (5, 7)),
        (Hints("a", "b"), (5, 7)),  # its regressor is the identity until it is built
    ],
)
def test_zero_where_the_activations_are_equal(loss: FeatureLoss, shape: tuple[int, ...]) -> None:
    student = _activations(*shape).requires_grad_()
    value = loss(student, student.detach())
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-5, rtol=0)


@NAMES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_finite_at_extremes(name: str, scale: float, dtype: torch.dtype) -> None:
    build, _, of_student, of_teacher = CASES[name]
    student = (scale * _activations(*of_student)).to(dtype).requires_grad_()
    value = build()(student, (scale * _activations(*of_teacher, seed=1)).to(dtype))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()


# Hints are computed in their regressor's type.
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("hints")])
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_activations_of_two_types_use_the_longer(name: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    build, formula, of_student, of_teacher = CASES[name]
    student, teacher = _activations(*of_student).to(dtypes[0]), _activations(*of_teacher, seed=1).to(dtypes[1])
    value = build()(student.requires_grad_(), teacher)
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
    build, _, of_student, of_teacher = CASES[name]
    student = _activations(*of_student).requires_grad_()
    build()(student, _activations(*of_teacher, seed=1)).backward()
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
