"""Test metrics, exact under any sharding and precision: sums of counts, not means of means."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, SumMetric
from torchmetrics.classification import BinaryCalibrationError, MulticlassConfusionMatrix

from kd_lightning.data.sequences import Sequences
from kd_lightning.methods.hinton import all_labelled
from kd_lightning.metrics.sequences import SequenceErrors
from kd_lightning.metrics.uncast import UncastMetric
from kd_lightning.metrics.wrong_rows import WrongRows

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4
# With more classes a confusion matrix is no longer read, and grows with the square.
TABLE_CLASSES = 100


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the labelled examples that are answered right, NaN where there are none.

    Args:
        logits: (batch, classes) float.
        labels: (batch,) int64, class indices; -1 where unknown, which no answer equals.
    """
    correct = logits.argmax(dim=-1) == labels
    return correct.float().mean() if all_labelled(labels) else correct.sum() / (labels >= 0).sum()


class Sum(UncastMetric, SumMetric):
    """Sum of values in float32, exact for counts up to 2^24."""


class Mean(UncastMetric, MeanMetric):
    """Mean of values, summed in float32."""


class CalibrationError(UncastMetric, BinaryCalibrationError):
    """Expected calibration error of a binary problem, in float32."""


class EvaluationMetrics(nn.Module):
    """Accuracy, errors, negative log-likelihood, Brier score, calibration error, and the agreement with the teachers.

    Args:
        with_teachers: Also measure the teachers' own errors and how often the student predicts their class.

    Attributes:
        scalars: Metrics of one number each, by name.
        tables: Counts behind a report's pictures.
    """

    def __init__(self, *, with_teachers: bool = False) -> None:
        super().__init__()
        metrics: dict[str, Metric] = {
            "errors": Sum(),
            "examples": Sum(),
            "accuracy": Mean(),
            "top2_accuracy": Mean(),
            "nll": Mean(),
            "brier": Mean(),
            "ece": CalibrationError(n_bins=CALIBRATION_BINS, validate_args=False),
        }
        if with_teachers:
            metrics |= {"teacher_errors": Sum(), "teacher_agreement": Mean()}
        self.scalars = nn.ModuleDict(metrics)
        self.tables = EvaluationTables(with_teachers=with_teachers)

    def add(
        self, logits: Tensor, labels: Tensor, teacher_log_probs: Tensor | None = None, rows: Tensor | None = None
    ) -> None:
        """Add the labelled examples of a batch.

        Args:
            logits: (batch, classes) float, before softmax.
            labels: (batch,) int64, -1 where unknown.
            rows: (batch,) int64, which examples they are; -1 or None where unknown.
            teacher_log_probs: (batch, classes) float, log of the averaged teachers' softmax, with teachers.
        """
        if self.tables.sequences is not None and rows is not None:
            self.tables.sequences.update(rows, logits.float().log_softmax(dim=-1), labels, teacher_log_probs)
        labelled = labels >= 0
        logits, labels = logits[labelled].float(), labels[labelled]
        probabilities = logits.softmax(dim=-1)
        confidence, predicted = probabilities.max(dim=-1)
        correct = predicted == labels
        self._metric("errors").update((~correct).float())
        self._metric("examples").update(len(labels))
        self._metric("accuracy").update(correct.float())
        best = logits.topk(min(2, logits.shape[-1]), dim=-1).indices
        self._metric("top2_accuracy").update((best == labels.unsqueeze(-1)).any(dim=-1).float())
        self._metric("nll").update(F.cross_entropy(logits, labels, reduction="none"))
        # Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", equation 2: from 0 to 2.
        wanted = F.one_hot(labels, logits.shape[-1])
        self._metric("brier").update((probabilities - wanted).square().sum(dim=-1))
        # The calibration error of the predicted class is that of a binary problem: is the prediction right?
        self._metric("ece").update(confidence, correct.long())
        teacher_classes = None
        if teacher_log_probs is not None:
            teacher_classes = teacher_log_probs[labelled].argmax(dim=-1)
            self._metric("teacher_errors").update((teacher_classes != labels).float())
            self._metric("teacher_agreement").update((teacher_classes == predicted).float())
        self.tables.wrong_rows.update(torch.full_like(labels, -1) if rows is None else rows[labelled], ~correct)
        self.tables.add(confidence, predicted, labels, teacher_classes, classes=logits.shape[-1])

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self.scalars[name])


class EvaluationTables(nn.Module):
    """Counts behind the pictures of a report: confusion with labels and teachers, right answers by confidence.

    Args:
        with_teachers: Also count how student and teachers differ.
    """

    def __init__(self, *, with_teachers: bool) -> None:
        super().__init__()
        self.with_teachers = with_teachers
        self.reliability = Reliability()
        self.wrong_rows = WrongRows()
        self.confusion: Metric | None = None  # made with the first batch, which has the number of classes
        self.teacher_confusion: Metric | None = None
        self.sequences: SequenceErrors | None = None

    def add(
        self, confidence: Tensor, predicted: Tensor, labels: Tensor, teacher_classes: Tensor | None, *, classes: int
    ) -> None:
        """Add a batch.

        Args:
            confidence: (batch,) float, the largest probability.
            predicted: (batch,) int64, its class.
            labels: (batch,) int64.
            teacher_classes: (batch,) int64, what the teachers predict.
            classes: How many there are.
        """
        self.reliability.update(confidence, predicted == labels)
        if classes > TABLE_CLASSES:
            return
        if self.confusion is None:
            self.confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(labels.device)
            if self.with_teachers:
                self.teacher_confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(labels.device)
        self.confusion.update(predicted, labels)
        if self.teacher_confusion is not None and teacher_classes is not None:
            self.teacher_confusion.update(predicted, teacher_classes)

    def reset(self, sequences: Sequences | None = None) -> None:
        """Reset all counts.

        Args:
            sequences: Those that the test rows are steps of; None where each is an example of its own.
        """
        self.reliability.reset()
        self.wrong_rows.reset()
        self.confusion = self.teacher_confusion = None
        self.sequences = None if sequences is None else SequenceErrors(sequences).to(self.reliability.device)

    def sequence_counts(self) -> dict[str, int]:
        """Sequences and errors among them by their name, such as utterances and digit_errors; empty without."""
        if self.sequences is None:
            return {}
        found = self.sequences.compute()
        names = {found["unit"]: "count", f"{found['kind']}_errors": "errors"}
        if "teacher_errors" in found:
            names[f"teacher_{found['kind']}_errors"] = "teacher_errors"
        return {name: found[key] for name, key in names.items()}

    def compute(self) -> dict[str, Any]:  # Any: nested lists of numbers, for JSON
        """All tables, over all ranks; every rank must call this.

        Returns:
            `reliability`: count, mean confidence and accuracy of each bin; `confusion`: counts by [label][prediction];
            `teacher_confusion`: counts by [teachers' prediction][prediction];
            `wrong_rows`: rows of the wrong answers, None if the batches don't hold them; `sequences` and
            `sequence_confusion`: see SequenceErrors.
        """
        tables: dict[str, Any] = {"reliability": self.reliability.compute(), "wrong_rows": self.wrong_rows.compute()}
        for name in ("confusion", "teacher_confusion"):
            metric = getattr(self, name)
            if metric is not None:
                tables[name] = metric.compute().tolist()
        if self.sequences is not None:
            found = self.sequences.compute()
            tables |= {"sequence_confusion": found["confusion"], "sequences": found}
        return tables


class Reliability(UncastMetric):
    """How often the prediction is right, by its confidence, in bins of equal width (Guo et al. 2017, figure 1)."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, CALIBRATION_BINS, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add a batch.

        Args:
            confidence: (batch,) float in [0, 1].
            correct: (batch,) bool.
        """
        confidence = confidence.nan_to_num()  # NaN counts as a confidence of 0
        bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        rows = torch.stack([torch.ones_like(confidence), confidence, correct.to(confidence.dtype)])
        self.sums.index_add_(1, bins, rows.to(self.sums.dtype))

    def compute(self) -> list[dict[str, float]]:
        """Count, mean confidence and accuracy of each bin, the least confident first."""
        counts, confidence, correct = self.sums.tolist()
        return [
            {"count": int(n), "confidence": c / n if n else 0.0, "accuracy": r / n if n else 0.0}
            for n, c, r in zip(counts, confidence, correct, strict=True)
        ]


def error_interval(errors: float, examples: int) -> tuple[float, float]:
    """95 % confidence interval of an error rate, as shares of 1.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".

    Args:
        errors: Count of misclassified examples, or its mean over seeds.
        examples: How many were tested, > 0.
    """
    z = 1.959964  # the normal distribution's 97.5 % point
    rate = errors / examples
    middle = (rate + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * (rate * (1 - rate) / examples + z**2 / (4 * examples**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def no_better_than_chance(errors: int, label_counts: Tensor) -> bool:
    """Whether so many errors could come from always naming the most frequent class.

    Args:
        errors: Count of misclassified examples.
        label_counts: (classes,) int64, how many examples of each class were tested.
    """
    count = int(label_counts.sum())
    share = float(label_counts.max()) / count
    chance = share if share < 1 else 0.0  # with a single class, its share is no measure of chance
    margin = 2 * (chance * (1 - chance) / count) ** 0.5  # two standard deviations of a guesser's accuracy
    return bool((count - errors) / count <= chance + margin)
