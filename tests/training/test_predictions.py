"""predictions.csv has one row for each sequence."""

import pytest
import torch

from kd_lightning.data.sequences import Sequences
from kd_lightning.training.predictions import sequence_rows

SEQUENCES = Sequences(
    "words", "word", torch.tensor([0, 2, 5]), torch.tensor([1, -1]), torch.tensor([[0], [1]]), ["a.wav", "b.wav"]
)


def _batch(rows: list[int]) -> dict[str, torch.Tensor]:
    answers = torch.tensor([[0.0, 9.0], [0.0, 9.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]).log_softmax(dim=1)
    return {"index": torch.tensor(rows), "log_probs": answers[rows]}


def test_a_line_for_each_sequence() -> None:
    rows = list(sequence_rows([_batch([4, 0]), _batch([1, 2, 3])], SEQUENCES))
    assert [list(row.values())[:4] for row in rows] == [[0, "a.wav", 1, 1], [1, "b.wav", "", 0]]
    assert [row["confidence"] for row in rows] == [f"{p:.6f}" for p in (0.858149, 0.937027)]


def test_a_part_is_not_recognised() -> None:
    with pytest.raises(ValueError, match=r"words are recognised as a whole: expected all 5 rows, got 2; leave out"):
        list(sequence_rows([_batch([0, 1])], SEQUENCES))
    with pytest.raises(ValueError, match=r"got 0"):
        list(sequence_rows([], SEQUENCES))
