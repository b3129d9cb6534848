"""How a module's net is tested, and how it answers."""

from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs
from kd_lightning.data.sequences import sequences_of
from kd_lightning.data.transfer_data import data_of
from kd_lightning.methods.hinton import check_labels
from kd_lightning.metrics.classification import EvaluationMetrics
from kd_lightning.modules.optimized import OptimizedModule


class EvaluatedModule(OptimizedModule):
    """A net, and what is measured of its logits.

    Arguments and errors as in `OptimizedModule`.
    """

    test_metrics: EvaluationMetrics  # set by the constructor of a subclass

    def on_test_epoch_start(self) -> None:
        """Reset the tables. Lightning resets only metrics that were passed to `self.log`."""
        self.test_metrics.tables.reset(sequences_of(data_of(self.trainer), "test"))

    def test_step(self, batch: Any, batch_idx: int) -> None:  # Any: also a user's own tuple
        """Add a batch to the test metrics."""
        batch = Batch.of(batch)
        logits = self(batch.inputs)
        check_labels(batch.labels, classes=logits.shape[-1])
        self.test_metrics.add(logits, batch.labels, self.teacher_log_probs(batch.inputs), batch.indices)
        scalars = {f"test/{name}": cast(Metric, metric) for name, metric in self.test_metrics.scalars.items()}
        self.log_dict(scalars, batch_size=len(batch.labels))

    def on_test_epoch_end(self) -> None:
        """Log the errors over whole sequences, where the data has some."""
        counts = self.test_metrics.tables.sequence_counts()
        self.log_dict({f"test/{name}": float(count) for name, count in counts.items()})

    def teacher_log_probs(self, inputs: Inputs) -> Tensor | None:
        """Log-probabilities that the net's answers are compared with, (batch, classes); None where there are none."""
        return None

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:  # Any: also a user's own tuple
        """Predicted class and its probability, with the index and the label, each (batch,).

        Of data with sequences also the log-probabilities, (batch, classes), by which these are recognised.
        """
        batch = Batch.of(batch)
        logits = self(batch.inputs).float()
        confidence, prediction = logits.softmax(dim=-1).max(dim=-1)
        found = {"prediction": prediction, "confidence": confidence, "label": batch.labels, "index": batch.indices}
        sequences = sequences_of(data_of(self.trainer), "predict")
        return found if sequences is None else found | {"log_probs": logits.log_softmax(dim=-1)}
