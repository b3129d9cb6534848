"""Dark knowledge: what teachers know in addition to the label."""

import math

import pytest
import torch
from torch import Tensor

from kd_lightning.teachers.knowledge import TEMPERATURES, Knowledge, knowledge

LOGITS = torch.tensor([[4.0, 2.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 2])  # the last one is wrong


def _known(logits: Tensor = LOGITS, labels: Tensor = LABELS) -> Knowledge:
    return knowledge(logits.unsqueeze(0), labels)


def test_errors_and_likelihood() -> None:
    (answers,) = _known().teachers
    assert answers.errors == 1
    assert answers.nll == pytest.approx(float(torch.nn.functional.cross_entropy(LOGITS.double(), LABELS)))
    assert answers.confidence == pytest.approx(float(LOGITS.softmax(dim=-1).max(dim=-1).values.mean()))
    assert _known().ensemble == pytest.approx(answers)


def test_agreement_counts_equal_classes() -> None:
    other = LOGITS.clone()
    other[0] = torch.tensor([0.0, 1.0, 0.0])
    found = knowledge(torch.stack([LOGITS, other]), LABELS).agreement
    assert found == [[1.0, 0.75], [0.75, 1.0]]


def test_dark_knowledge_by_hand() -> None:
    # One example, T = 1: p = (1/2, 3/8, 1/8); the rest, 1/2, spread evenly is 1/4 each.
    known = _known(torch.tensor([[4.0, 3.0, 1.0]]).log(), torch.tensor([0]))
    at_one = next(each for each in known.temperatures if each.temperature == 1)
    assert at_one.label == pytest.approx(0.5)
    assert at_one.dark_knowledge == pytest.approx(0.375 * math.log(1.5) + 0.125 * math.log(0.5))
    assert at_one.entropy == pytest.approx(-(0.5 * math.log(0.5) + 0.375 * math.log(0.375) + 0.125 * math.log(0.125)))


def test_it_rises_with_temperature_to_that_of_matched_logits() -> None:
    known = _known()
    dark = [each.dark_knowledge for each in known.temperatures]
    assert dark == sorted(dark)
    # T^2 * KL tends to half the variance of the other classes' logits, weighted by their share of the classes.
    others = torch.stack(
        [LOGITS[row][[c for c in range(3) if c != label]] for row, label in enumerate(LABELS.tolist())]
    )
    limit = float(others.var(dim=-1, unbiased=False).mean()) / 2 * 2 / 3
    assert dark[-1] == pytest.approx(limit, rel=0.05)


def test_a_sure_teacher_says_it_later_than_an_unsure_one() -> None:
    sure, unsure = _known(5 * LOGITS).useful_range, _known(LOGITS).useful_range
    assert sure is not None
    assert unsure is not None
    assert sure[0] > unsure[0]
    assert set(sure) | set(unsure) <= set(TEMPERATURES)


def test_two_classes_have_no_dark_knowledge() -> None:
    assert _known(LOGITS[:2, :2], LABELS[:2]).useful_range is None


def test_all_of_it_is_finite_for_huge_logits() -> None:
    for each in _known(1e4 * LOGITS).temperatures:
        assert all(map(math.isfinite, each))
