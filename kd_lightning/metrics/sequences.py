"""Whole sequences, such as spoken words, recognised by the classes of their examples, such as frames."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from kd_lightning.data.sequences import Sequences
from kd_lightning.metrics.uncast import UncastMetric

# Neighbouring frames are nearly the same, so their log-probabilities can't simply be added up. Speech recognisers scale
# the sum; 0.1 is the default of Kaldi's decoders (Povey et al. 2011). It changes confidences, no prediction.
ACOUSTIC_SCALE = 0.1
_LEAST = -1e4  # of a log-probability: infinities can't be added up
_DRAWS = 1000  # of a bootstrap


def best_path_scores(log_probs: Tensor, paths: Tensor) -> Tensor:
    """Log-probability of the best way through each kind's states, (kinds,) float64.

    A way begins in the first state, ends in the last and leaves none out: Viterbi's algorithm without probabilities of
    staying or moving on. best[s, t] = sum of s up to t + the maximum over t' <= t of (best[s - 1, t' - 1] - sum of s up
    to t' - 1), which needs a loop over the states only.

    Args:
        log_probs: (frames, classes) float, of each class in each frame.
        paths: (kinds, states) int64, classes of a kind's states in their order.

    Returns:
        The scores; minus infinity where there are fewer frames than states.
    """
    sums = log_probs.double().clamp(min=_LEAST)[:, paths].cumsum(dim=0)  # (frames, kinds, states)
    best = sums[..., 0]  # (frames, kinds)
    for state in range(1, paths.shape[1]):
        entered = (best[:-1] - sums[:-1, :, state]).cummax(dim=0).values if len(best) > 1 else best[:-1]
        never = torch.full_like(best[:1], -torch.inf)  # in the first frame
        best = torch.cat([never, entered + sums[1:, :, state]])
    return best[-1]


class Recognised(NamedTuple):
    """What sequences were taken for.

    Attributes:
        kinds: (sequences,) int64, the kind with the best path.
        confidence: (sequences,) float in [0, 1], softmax of the scaled scores.
    """

    kinds: Tensor
    confidence: Tensor


def recognise(log_probs: Tensor, sequences: Sequences) -> Recognised:
    """Recognise each sequence by the best path through each kind's states.

    Args:
        log_probs: (rows, classes) float, of all rows of the sequences.
        sequences: At least one.
    """
    log_probs, paths = log_probs.cpu(), sequences.paths.cpu()
    scores = [best_path_scores(log_probs[first:end], paths) for first, end in pairwise(sequences.starts.tolist())]
    confidence, kinds = (ACOUSTIC_SCALE * torch.stack(scores)).softmax(dim=-1).nan_to_num().max(dim=-1)
    return Recognised(kinds, confidence)


class SequenceErrors(UncastMetric):
    """Errors over whole sequences, of a net and of its teachers.

    Args:
        sequences: Those that are tested.
    """

    rows: list[Tensor]
    log_probs: list[Tensor]
    labels: list[Tensor]
    teacher_log_probs: list[Tensor]

    def __init__(self, sequences: Sequences) -> None:
        super().__init__()
        self.sequences = sequences
        for state in ("rows", "log_probs", "labels", "teacher_log_probs"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, rows: Tensor, log_probs: Tensor, labels: Tensor, teacher_log_probs: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            rows: (batch,) int64.
            log_probs: (batch, classes) float.
            labels: (batch,) int64, of the rows themselves; -1 where unknown.
            teacher_log_probs: (batch, classes) float, of the averaged teachers, where there are some.
        """
        self.rows.append(rows)
        self.log_probs.append(log_probs.float())
        self.labels.append(labels)
        if teacher_log_probs is not None:
            self.teacher_log_probs.append(teacher_log_probs.float())

    def compute(self) -> dict[str, Any]:  # Any: numbers and lists, for JSON
        """What was measured on the sequences that have a label and were seen whole.

        Returns:
            `unit` and `kind`; `count` of sequences and `errors` among them; `confusion`: counts by [label][prediction];
            `wrong`: numbers of the sequences in error; `row_error_interval`: 95 % confidence interval of the rows'
            error rate; with teachers also `teacher_errors`.
        """
        sequences, rows = self.sequences, dim_zero_cat(self.rows).cpu()
        lengths = sequences.starts.diff()
        sequence_of_row = torch.arange(len(lengths)).repeat_interleave(lengths)
        seen = torch.bincount(sequence_of_row[rows], minlength=len(lengths))
        row_labels = dim_zero_cat(self.labels).cpu()
        row_wrong = (dim_zero_cat(self.log_probs).cpu().argmax(dim=1) != row_labels) & (row_labels >= 0)
        wrong_rows, labelled_rows = (
            torch.bincount(sequence_of_row[rows[chosen]], minlength=len(lengths))
            for chosen in (row_wrong, row_labels >= 0)
        )
        tested = ((seen == lengths) & (sequences.labels >= 0)).nonzero().flatten()
        labels, kinds = sequences.labels[tested], len(sequences.paths)
        taken_for = self._recognised(self.log_probs, rows)[tested]
        table = torch.bincount(labels * kinds + taken_for, minlength=kinds**2).view(kinds, kinds)
        found = {
            "unit": sequences.unit,
            "kind": sequences.kind,
            "count": len(tested),
            "errors": int((taken_for != labels).sum()),
            "confusion": table.tolist(),
            "wrong": tested[taken_for != labels].tolist(),
            "row_error_interval": bootstrap_interval(wrong_rows[tested], labelled_rows[tested]),
        }
        if len(self.teacher_log_probs):
            teacher_kinds = self._recognised(self.teacher_log_probs, rows)[tested]
            found["teacher_errors"] = int((teacher_kinds != labels).sum())
        return found

    def _recognised(self, log_probs: list[Tensor], rows: Tensor) -> Tensor:
        """The kind of each sequence, (sequences,) int64."""
        parts = dim_zero_cat(log_probs).cpu()
        ordered = parts.new_zeros(int(self.sequences.starts[-1]), parts.shape[1]).index_copy_(0, rows, parts)
        return recognise(ordered, self.sequences).kinds


def bootstrap_interval(wrong: Tensor, sizes: Tensor) -> tuple[float, float] | None:
    """95 % confidence interval of an error rate where examples stand in sequences, as shares of 1.

    Frames of one word are right or wrong together, so whole words are drawn with replacement, and the interval is that
    of the middle 95 % of the rates drawn. Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".

    Args:
        wrong: (sequences,) int64, errors in each.
        sizes: (sequences,) int64, examples of each.

    Returns:
        None where there is no example.
    """
    if not sizes.any():
        return None
    drawn = torch.randint(len(sizes), (_DRAWS, len(sizes)), generator=torch.Generator().manual_seed(0))
    rates = wrong.double()[drawn].sum(dim=1) / sizes.double()[drawn].sum(dim=1).clamp(min=1)
    low, high = rates.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
