"""Examples that are steps of sequences, such as the frames of a spoken word."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Sequences(NamedTuple):
    """Which examples make up which sequence, and what a sequence may be.

    Attributes:
        unit: What a sequence is, in the plural: utterances.
        kind: What is recognised, in the singular: digit.
        starts: (sequences + 1,) int64, rising from 0: sequence n has the rows from starts[n] up to starts[n + 1].
        labels: (sequences,) int64, the kind of each; -1 where unknown.
        paths: (kinds, states) int64. Rows of a sequence of a kind have these classes in this order, each at least once.
        names: Name of each sequence, such as its file; None where they have none.
    """

    unit: str
    kind: str
    starts: Tensor
    labels: Tensor
    paths: Tensor
    names: Sequence[str] | None = None


@runtime_checkable
class HasSequences(Protocol):
    """A data module whose examples are steps of sequences; tests and predictions then report both."""

    def sequences(self, stage: Literal["test", "predict"]) -> Sequences | None:
        """The sequences of the test rows, or of those that are predicted; None where there are none."""


def sequences_of(data: object, stage: Literal["test", "predict"]) -> Sequences | None:
    """The sequences of a data module's rows; None where they are examples of their own."""
    return data.sequences(stage) if isinstance(data, HasSequences) else None
