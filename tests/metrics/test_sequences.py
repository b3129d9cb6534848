"""Whole sequences: the best path against all paths, errors against counts by hand, intervals against known ones."""

from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor

from kd_lightning.data.sequences import Sequences, sequences_of
from kd_lightning.metrics.classification import EvaluationMetrics, error_interval
from kd_lightning.metrics.sequences import SequenceErrors, best_path_scores, bootstrap_interval, recognise

PATHS = torch.tensor([[0, 1, 2], [3, 4, 5], [2, 1, 0]])


def _by_all_paths(log_probs: Tensor, path: list[int]) -> float:
    frames, best = len(log_probs), float("-inf")
    for bounds in combinations(range(1, frames), len(path) - 1):
        cuts = [0, *bounds, frames]
        parts = zip(path, pairwise(cuts), strict=True)
        best = max(best, sum(float(log_probs[a:b, state].double().sum()) for state, (a, b) in parts))
    return best


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("states", [1, 2, 3])
def test_the_best_path_is_the_best_of_all(frames: int, states: int) -> None:
    log_probs = torch.randn(frames, 6, generator=torch.Generator().manual_seed(frames)).mul(3).log_softmax(dim=1)
    paths = PATHS[:, :states]
    expected = [_by_all_paths(log_probs, path) for path in paths.tolist()]
    assert best_path_scores(log_probs, paths).tolist() == pytest.approx(expected)


def test_probabilities_of_zero_are_survived() -> None:
    log_probs = torch.full((4, 6), -torch.inf)
    log_probs[:, 3] = 0
    scores = best_path_scores(log_probs, PATHS)
    assert torch.isfinite(scores).all()
    assert scores.argmax() == 1


def _sequences(labels: list[int], lengths: list[int]) -> Sequences:
    starts = torch.tensor([0, *lengths]).cumsum(dim=0)
    return Sequences("words", "word", starts, torch.tensor(labels), PATHS)


def _sure(kinds: list[int], lengths: list[int]) -> Tensor:
    """Logits (rows, 6) of a net that is sure of these kinds' states, each a third of the sequence."""
    states = [
        PATHS[kind, row * 3 // length] for kind, length in zip(kinds, lengths, strict=True) for row in range(length)
    ]
    return 5 * torch.eye(6)[torch.stack(states)]


def test_recognition_and_its_confidence() -> None:
    sequences = _sequences([-1, -1, -1], [3, 6, 4])
    found = recognise(_sure([1, 0, 2], [3, 6, 4]).log_softmax(dim=1), sequences)
    assert found.kinds.tolist() == [1, 0, 2]
    assert bool(((found.confidence > 1 / 3) & (found.confidence <= 1)).all())
    unsure = recognise(torch.full((13, 6), 1 / 6).log(), sequences)
    assert unsure.confidence.tolist() == pytest.approx([1 / 3] * 3)


def test_errors_in_any_order_of_batches() -> None:
    lengths, labels, taken_for = [3, 6, 4, 5], [0, 1, 2, -1], [0, 2, 2, 1]
    sequences = _sequences(labels, lengths)
    logits = _sure(taken_for, lengths)
    rows = torch.randperm(18, generator=torch.Generator().manual_seed(0))
    row_labels = logits.argmax(dim=1)
    row_labels[3:9] = 5  # sequence 1 is all wrong
    row_labels[0] = -1
    metric = SequenceErrors(sequences)
    for part in rows.split(7):  # type: ignore[no-untyped-call]
        metric.update(part, logits[part].log_softmax(dim=1), row_labels[part], _sure([*labels[:3], 0], lengths)[part])
    found = metric.compute()
    assert (found["count"], found["errors"], found["wrong"], found["teacher_errors"]) == (3, 1, [1], 0)
    assert found["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    low, high = found["row_error_interval"]
    assert low == 0
    assert high == 1


def test_only_whole_sequences_count() -> None:
    lengths = [3, 6]
    metric = SequenceErrors(_sequences([0, 1], lengths))
    rows = torch.arange(8)  # the last row is not tested
    metric.update(rows, _sure([1, 1], lengths)[rows].log_softmax(dim=1), torch.zeros(8, dtype=torch.int64))
    found = metric.compute()
    assert (found["count"], found["errors"]) == (1, 1)


def test_no_whole_sequence() -> None:
    metric = SequenceErrors(_sequences([0], [3]))
    metric.update(torch.tensor([0]), torch.zeros(1, 6), torch.tensor([0]))
    found = metric.compute()
    assert (found["count"], found["errors"], found["row_error_interval"]) == (0, 0, None)


def test_sequences_of_one_example_have_the_usual_interval() -> None:
    wrong = (torch.arange(400) < 40).long()
    found = bootstrap_interval(wrong, torch.ones(400, dtype=torch.int64))
    assert found == pytest.approx(error_interval(40, 400), abs=0.006)
    assert found == bootstrap_interval(wrong, torch.ones(400, dtype=torch.int64))


def test_frames_that_are_wrong_together_have_a_wider_interval() -> None:
    wrong, sizes = 40 * (torch.arange(100) < 20).long(), torch.full((100,), 40)
    low, high = bootstrap_interval(wrong, sizes) or (0.0, 0.0)
    narrow_low, narrow_high = error_interval(800, 4000)
    assert high - low > 4 * (narrow_high - narrow_low)


def test_test_metrics_measure_sequences_where_there_are_some() -> None:
    metrics = EvaluationMetrics(with_teachers=True)
    lengths = [3, 6]
    logits, rows = _sure([0, 1], lengths), torch.arange(9)
    labels = logits.argmax(dim=1)
    metrics.tables.reset(_sequences([0, 2], lengths))
    metrics.add(logits, labels, logits.log_softmax(dim=1), rows)
    assert metrics.tables.sequence_counts() == {"words": 2, "word_errors": 1, "teacher_word_errors": 1}
    tables = metrics.tables.compute()
    assert tables["sequence_confusion"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    metrics.tables.reset()
    metrics.add(logits, labels, logits.log_softmax(dim=1), rows)
    assert metrics.tables.sequence_counts() == {}
    assert "sequences" not in metrics.tables.compute()


def test_other_data_has_no_sequences() -> None:
    assert sequences_of(object(), "test") is None
    assert sequences_of(None, "predict") is None
