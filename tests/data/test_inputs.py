"""Inputs of one tensor or of several: what is taken for a batch, and what is done to each tensor."""

import re

import pytest
import torch
from torch import Tensor

from kd_lightning import Batch, InMemoryDataModule
from kd_lightning.data.inputs import Inputs, first_of, mapped, tensors_of

SMALL, BIG, LABELS = torch.rand(3, 4), torch.rand(3, 9), torch.tensor([1, 0, 2])


@pytest.mark.parametrize(
    ("given", "kind"), [((SMALL, BIG), tuple), ([SMALL, BIG], tuple), ({"small": SMALL, "big": BIG}, dict)]
)
def test_several_tensors_are_inputs(given: object, kind: type) -> None:
    batch = Batch.of([given, LABELS])
    assert type(batch.inputs) is kind
    assert all(mine is theirs for mine, theirs in zip(tensors_of(batch.inputs), (SMALL, BIG), strict=True))
    assert Batch.of(batch) is batch
    (first, other) = tensors_of(first_of(batch.inputs))
    assert (first.shape, other.shape) == ((1, 4), (1, 9))
    assert type(first_of(batch.inputs)) is kind


class Two(InMemoryDataModule):
    """Each example as two tensors, named as it is asked for."""

    num_classes = 3

    def __init__(self, names: tuple[str, str]) -> None:
        super().__init__()
        self.names = names

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return (SMALL, LABELS), (SMALL, LABELS)

    def to_inputs(self, raw: Tensor, views: Tensor | None) -> Inputs:
        return dict(zip(self.names, (raw, -raw), strict=True))


def test_a_data_sets_fingerprint_knows_the_names() -> None:
    data = [Two(("a", "b")), Two(("b", "a")), Two(("a", "b"))]
    for each in data:
        each.setup("fit")
    first, swapped, again = (each.fingerprint() for each in data)
    assert first == again != swapped
    inputs = data[1].inputs(torch.tensor([2]), torch.tensor([0]))
    assert isinstance(inputs, dict)
    torch.testing.assert_close(inputs, {"b": SMALL[2:], "a": -SMALL[2:]})


def test_one_tensor_stays_one() -> None:
    inputs: Inputs = SMALL
    assert tensors_of(inputs) == [SMALL]
    assert torch.equal(tensors_of(mapped(inputs, torch.neg))[0], -SMALL)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "got a tuple of 0"),
        ({}, "got a dict with "),
        ((SMALL, BIG[:2]), "got a tuple of 2: a tensor of shape (3, 4) and type float32, a tensor of shape (2, 9)"),
        ({"small": SMALL, "size": 32}, "got a dict with small, size: a tensor of shape (3, 4) and type float32, a int"),
        (torch.tensor(1.0), "got a tensor of shape () and type float32"),
        ("pixels", "got a str"),
    ],
)
def test_what_is_no_input_is_said(inputs: object, message: str) -> None:
    begin = "a batch's inputs must be a tensor (batch, ...), or a tuple or dict of such tensors of the same examples, "
    with pytest.raises(ValueError, match=re.escape(begin + message)):
        Batch.of((inputs, LABELS))


def test_labels_are_counted_against_the_examples_of_each_tensor() -> None:
    with pytest.raises(ValueError, match=r"integers of shape \(3,\), got a tensor of shape \(2,\)"):
        Batch.of(((SMALL, BIG), LABELS[:2]))
