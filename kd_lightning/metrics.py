"""Test metrics, exact under any sharding: sums of counts, not means of means."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, SumMetric
from torchmetrics.classification import BinaryCalibrationError

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4


class TestMetrics(nn.ModuleDict):
    """Accuracy, errors, negative log-likelihood and calibration error, and the agreement with the teachers.

    Args:
        with_teachers: Also measure the teachers' own errors and how often the student predicts their class.
    """

    __test__ = False  # not a test case, whatever its name

    def __init__(self, *, with_teachers: bool = False) -> None:
        metrics: dict[str, Metric] = {
            "errors": SumMetric(),
            "examples": SumMetric(),
            "accuracy": MeanMetric(),
            "nll": MeanMetric(),
            "ece": BinaryCalibrationError(n_bins=CALIBRATION_BINS, validate_args=False),
        }
        if with_teachers:
            metrics |= {"teacher_errors": SumMetric(), "teacher_agreement": MeanMetric()}
        super().__init__(metrics)

    def add(self, logits: Tensor, labels: Tensor, teacher_log_probs: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (batch, classes) float, before softmax.
            labels: (batch,) int64.
            teacher_log_probs: (batch, classes) float, log of the averaged teachers' softmax, with teachers.
        """
        logits = logits.float()
        confidence, predicted = logits.softmax(dim=-1).max(dim=-1)
        correct = predicted == labels
        self._metric("errors").update((~correct).float())
        self._metric("examples").update(len(labels))
        self._metric("accuracy").update(correct.float())
        self._metric("nll").update(F.cross_entropy(logits, labels, reduction="none"))
        # The calibration error of the predicted class is that of a binary problem: is the prediction right?
        self._metric("ece").update(confidence, correct.long())
        if teacher_log_probs is not None:
            taught = teacher_log_probs.argmax(dim=-1)
            self._metric("teacher_errors").update((taught != labels).float())
            self._metric("teacher_agreement").update((taught == predicted).float())

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self[name])


def no_better_than_chance(errors: int, label_counts: Tensor) -> bool:
    """Whether so many errors could come from always naming the most frequent class.

    Args:
        errors: Count of misclassified examples.
        label_counts: (classes,) int64, how many examples of each class were tested.
    """
    count = int(label_counts.sum())
    share = float(label_counts.max()) / count
    chance = share if share < 1 else 0.0  # with one class alone, its share says nothing
    margin = 2 * (chance * (1 - chance) / count) ** 0.5  # two standard deviations of a guesser's accuracy
    return bool((count - errors) / count <= chance + margin)
