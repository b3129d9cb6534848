"""Test metrics against values worked by hand and independent references."""

import pytest
import torch
from torch import Tensor

from kd_lightning.metrics.classification import (
    CALIBRATION_BINS,
    EvaluationMetrics,
    Mean,
    Reliability,
    accuracy,
    error_interval,
)

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 3.0, 0.0], [1.0, 0.0, 0.9]])
LABELS = torch.tensor([0, 2, 1, 1])


def _measured(*, with_teachers: bool) -> tuple[EvaluationMetrics, dict[str, float]]:
    metrics = EvaluationMetrics(with_teachers=with_teachers)
    taught = torch.log_softmax(LOGITS.roll(1, dims=0), dim=1) if with_teachers else None
    for rows in (slice(0, 1), slice(1, 4)):  # unequal batches: means of means would show
        metrics.add(LOGITS[rows], LABELS[rows], None if taught is None else taught[rows])
    return metrics, {name: float(metric.compute()) for name, metric in metrics.scalars.items()}  # type: ignore[operator]


def test_scalars_worked_by_hand() -> None:
    _, values = _measured(with_teachers=False)
    assert values["errors"] == 2
    assert values["examples"] == 4
    assert values["accuracy"] == 0.5
    assert values["top2_accuracy"] == 0.75  # the last one has its label third
    probabilities = LOGITS.double().softmax(dim=1)
    brier = sum(
        (p - (1.0 if c == label else 0.0)) ** 2
        for row, label in zip(probabilities.tolist(), LABELS.tolist(), strict=True)
        for c, p in enumerate(row)
    )
    assert values["brier"] == pytest.approx(brier / 4, abs=1e-6)
    nll = -probabilities[torch.arange(4), LABELS].log().mean()
    assert values["nll"] == pytest.approx(float(nll), abs=1e-6)


def test_tables_count_labels_teachers_and_confidence() -> None:
    metrics, values = _measured(with_teachers=True)
    tables = metrics.tables.compute()
    assert tables["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]  # [label][prediction]
    # predictions 0 1 1 0, the teachers' 0 0 1 1
    assert tables["teacher_confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert values["teacher_agreement"] == 0.5
    assert sum(each["count"] for each in tables["reliability"]) == 4
    right = sum(each["count"] * each["accuracy"] for each in tables["reliability"])
    assert right == pytest.approx(2)
    metrics.tables.reset()
    metrics.add(LOGITS, LABELS, LOGITS.log_softmax(dim=1))
    assert sum(map(sum, metrics.tables.compute()["confusion"])) == 4
    wide = EvaluationMetrics()
    wide.add(torch.randn(2, 1000), torch.tensor([1, 2]))
    assert "confusion" not in wide.tables.compute()


def test_calibration_error_follows_from_the_reliability_bins() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(500, 10, generator=generator) * 3, torch.randint(10, (500,), generator=generator)
    metrics = EvaluationMetrics()
    metrics.add(logits, labels)
    bins = metrics.tables.compute()["reliability"]
    assert len(bins) == CALIBRATION_BINS
    error = sum(each["count"] * abs(each["accuracy"] - each["confidence"]) for each in bins) / 500
    assert error == pytest.approx(float(metrics.scalars["ece"].compute()), abs=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (0.5, 7), (1.0, 14)])
def test_reliability_bins_have_equal_width(confidence: float, place: int) -> None:
    metric = Reliability()
    metric.update(torch.tensor([confidence]), torch.tensor([True]))
    assert [each["count"] for each in metric.compute()].index(1) == place


def test_interval_of_the_error_rate() -> None:
    low, high = error_interval(74, 10_000)
    # Wilson's score interval, from the quadratic that defines it: both ends lie z standard errors away from the rate.
    for end in (low, high):
        assert abs(end - 0.0074) == pytest.approx(1.959964 * (end * (1 - end) / 10_000) ** 0.5, rel=1e-6)
    assert error_interval(0, 100)[0] == 0
    assert error_interval(100, 100)[1] == 1


def test_no_class_is_needed_beyond_two() -> None:
    metrics = EvaluationMetrics()
    one: Tensor = torch.zeros(3, 1)
    metrics.add(one, torch.zeros(3, dtype=torch.int64))
    assert float(metrics.scalars["top2_accuracy"].compute()) == 1  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_module_counts_as_an_uncast_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4_000, 10, generator=generator), torch.randint(10, (4_000,), generator=generator)
    torch.set_default_dtype(dtype)  # as the trainer does around its steps
    try:
        made_there = EvaluationMetrics(with_teachers=True)
    finally:
        torch.set_default_dtype(torch.float32)
    halves = (
        EvaluationMetrics(with_teachers=True),
        EvaluationMetrics(with_teachers=True).to(dtype),
        made_there.to(dtype),
    )
    for metrics in halves:
        for start in range(0, len(labels), 100):
            rows = slice(start, start + 100)
            metrics.add(logits[rows], labels[rows], logits[rows].roll(1, 1).log_softmax(dim=1))
    exact, cast, cast_there = (
        {name: float(metric.compute()) for name, metric in metrics.scalars.items()}  # type: ignore[operator]
        for metrics in halves
    )
    assert exact == cast == cast_there
    assert exact["examples"] == 4_000
    assert exact["errors"] == int((logits.argmax(dim=1) != labels).sum())
    assert halves[0].tables.compute() == halves[1].tables.compute() == halves[2].tables.compute()


def test_a_cast_in_mid_epoch_loses_no_count() -> None:
    mean = Mean()
    mean.update(torch.tensor([1.0] * 1001 + [0.0] * 1000))
    module = torch.nn.ModuleDict({"mean": mean}).to(torch.bfloat16)
    assert float(mean.compute()) == pytest.approx(1001 / 2001)
    module.to("meta")
    assert mean.device == torch.device("meta")


@pytest.mark.parametrize(
    ("labels", "share"), [([0, 1, 1], 2 / 3), ([0, -1, 1], 1.0), ([1, -1, -1], 0.0), ([-1, -1, -1], float("nan"))]
)
def test_accuracy_is_that_of_labelled_examples(labels: list[int], share: float) -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert float(accuracy(logits, torch.tensor(labels))) == pytest.approx(share, nan_ok=True)
