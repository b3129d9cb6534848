"""TeacherModule: a net trained on the labels only."""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.methods.hinton import hard_loss
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.optimization import SchedulerCallable


class TeacherModule(ClassifierModule):
    """Train a net on the labels; its checkpoint can then teach.

    Args:
        net: Maps inputs to logits (batch, classes).
        optimizer: Called with the parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer and, where it takes total_steps or T_max, the run's number of steps. It is
            stepped after each step, so its numbers count steps; ReduceLROnPlateau is stepped after each epoch's
            validation and watches val/loss (lightning.pytorch.cli.ReduceLROnPlateau takes another `monitor`).
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.
        compile: Compile the net with torch.compile; pays on GPUs and for large nets.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_norm: float | None = None,
        compile: bool = False,  # noqa: A002  # torch's own word
    ) -> None:
        super().__init__(net, optimizer, scheduler, max_norm, compile)

    def losses(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Only the hard loss; arguments as in `ClassifierModule.losses`."""
        return {"loss": hard_loss(student_logits=logits, labels=batch.labels)}
