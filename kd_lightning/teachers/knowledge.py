"""Dark knowledge: what the soft targets hold in addition to the label, and from which temperature on."""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.hinton import Averaging, soft_targets
from kd_lightning.metrics.classification import CALIBRATION_BINS, CalibrationError

TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 30.0, 50.0)
# The useful temperatures start and end at these shares of the largest dark knowledge.
_FIRST_SHARE, _LAST_SHARE = 0.1, 0.9


class Answers(NamedTuple):
    """How well one teacher, or all together, answer.

    Attributes:
        errors: Wrong answers.
        nll: Negative log-likelihood of the labels, nats per example.
        confidence: Mean of the largest probability.
        calibration_error: Expected calibration error, from 0 to 1.
    """

    errors: int
    nll: float
    confidence: float
    calibration_error: float


class AtTemperature(NamedTuple):
    """The soft targets at one temperature, means over the examples.

    Attributes:
        temperature: T, no unit.
        label: Probability of the label.
        entropy: Entropy, nats; at most log(classes).
        dark_knowledge: T^2 * KL(soft targets || targets with the same probability of the label and the rest spread
            evenly), nats: the soft loss that is left for a student who knows the label and how sure the teachers are.
    """

    temperature: float
    label: float
    entropy: float
    dark_knowledge: float


class Knowledge(NamedTuple):
    """What teachers know of some labelled examples.

    Attributes:
        examples: How many.
        classes: How many.
        teachers: Each teacher's answers.
        ensemble: The average's, at T = 1.
        agreement: (teachers, teachers): share of the examples on which two teachers name the same class.
        temperatures: The soft targets at rising temperatures.
    """

    examples: int
    classes: int
    teachers: list[Answers]
    ensemble: Answers
    agreement: list[list[float]]
    temperatures: list[AtTemperature]

    @property
    def useful_range(self) -> tuple[float, float] | None:
        """The temperatures from which the soft targets hold more than the label, and from which more adds little.

        None if they never do: with two classes, or if the teachers spread the rest evenly.
        """
        largest = max(each.dark_knowledge for each in self.temperatures)
        if not largest > 0:
            return None
        first = next(each for each in self.temperatures if each.dark_knowledge >= _FIRST_SHARE * largest)
        last = next(each for each in self.temperatures if each.dark_knowledge >= _LAST_SHARE * largest)
        return first.temperature, last.temperature


def knowledge(teacher_logits: Tensor, labels: Tensor, averaging: Averaging = "arithmetic") -> Knowledge:
    """Measure what teachers know.

    Args:
        teacher_logits: (teachers, examples, classes) float, before softmax.
        labels: (examples,) int64.
        averaging: How the teachers' softened distributions are combined.
    """
    teacher_logits = teacher_logits.double()
    predictions = teacher_logits.argmax(dim=-1)  # (teachers, examples)
    agreement = (predictions.unsqueeze(0) == predictions.unsqueeze(1)).double().mean(dim=-1)
    return Knowledge(
        examples=len(labels),
        classes=teacher_logits.shape[-1],
        teachers=[_answers(logits.log_softmax(dim=-1), labels) for logits in teacher_logits],
        ensemble=_answers(_softened(teacher_logits, 1.0, averaging), labels),
        agreement=agreement.tolist(),
        temperatures=[
            _at_temperature(_softened(teacher_logits, temperature, averaging), labels, temperature)
            for temperature in TEMPERATURES
        ],
    )


def _softened(logits: Tensor, temperature: float, averaging: Averaging) -> Tensor:
    return soft_targets(teacher_logits=logits, temperature=temperature, averaging=averaging).log_probs


def _answers(log_probs: Tensor, labels: Tensor) -> Answers:
    confidence, predicted = log_probs.exp().max(dim=-1)
    correct = predicted == labels
    calibration = CalibrationError(n_bins=CALIBRATION_BINS)
    calibration.update(confidence.float(), correct.long())
    return Answers(
        int((~correct).sum()),
        float(F.nll_loss(log_probs, labels)),
        float(confidence.mean()),
        float(calibration.compute()),
    )


def _at_temperature(log_probs: Tensor, labels: Tensor, temperature: float) -> AtTemperature:
    probabilities = log_probs.exp()
    of_label = F.one_hot(labels, log_probs.shape[-1]).bool()
    others = log_probs.masked_fill(of_label, -math.inf)  # (examples, classes)
    rest = others.logsumexp(dim=-1, keepdim=True)  # log-probability of all other classes together
    even = rest - math.log(max(1, log_probs.shape[-1] - 1))
    dark = (probabilities * (log_probs - even)).masked_fill(of_label, 0).sum(dim=-1)
    entropy = -(probabilities * log_probs).sum(dim=-1)
    return AtTemperature(
        temperature,
        float(probabilities[of_label].mean()),
        float(entropy.mean()),
        temperature**2 * float(dark.mean().clamp_min(0)),
    )
