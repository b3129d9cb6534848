"""DistillModule: a student trained on the teachers' soft targets and the labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs
from kd_lightning.methods.base import FeatureLoss, SoftLoss
from kd_lightning.methods.hinton import Averaging
from kd_lightning.metrics.classification import EvaluationMetrics
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.distiller import Distiller
from kd_lightning.modules.optimization import SchedulerCallable, gradient_shares
from kd_lightning.modules.schedules import Linear
from kd_lightning.teachers.ensemble import FrozenEnsemble, Precision
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.named import Teacher, refuse_shared_weights
from kd_lightning.teachers.source import LiveTeachers, TeacherSource
from kd_lightning.teachers.store_plan import Mode, StoreOptions


def _of_distiller(name: str) -> Any:  # Any: each attribute is annotated with its own type
    """An attribute of the module's distiller, read and set."""
    return property(
        lambda module: getattr(module.distiller, name), lambda module, value: setattr(module.distiller, name, value)
    )


class DistillModule(ClassifierModule):
    """Train a student on soft_weight * soft loss + (1 - soft_weight) * hard loss.

    The soft loss is T^2 * KL(soft targets || student's softmax at T), the hard loss the cross-entropy with the
    labels at T = 1 (Hinton et al. 2015, section 2); `Distiller.forward` computes them. With soft_weight 0 it is the
    plain student, which needs no teacher.

    Args:
        student: The net to train; maps inputs to logits (batch, classes).
        teachers: A checkpoint, a run's folder (its best checkpoint, or its last where there was no validation),
            a glob of either, a file of logits (.npy or .safetensors, see `LogitsFile`), a module, a `Teacher` (one with
            its own inputs, classes or weights file), or a list of such. Modules are copied when a fit begins: your own
            stay as they are.
        temperature: T in [0.001, 1000], no unit, divides the logits of teachers and student in the soft loss; a number,
            or a `Linear` schedule over the run.
        soft_weight: Share of the soft loss, in [0, 1]; a number or a `Linear` schedule.
        label_smoothing: Share of the labels that the hard loss spreads evenly over all classes, in [0, 1).
        soft_loss: What compares the student's logits with the soft targets; KL by default.
        feature_losses: Further terms that compare activations; each is added with its own weight.
        averaging: How the teachers' softened distributions are combined, arithmetic or geometric mean.
        teacher_weights: One number >= 0 per teacher; equal weights by default.
        soft_targets: Where the teachers' logits come from: `live`, their pass over each batch; `stored`, computed once
            and kept on disk; `auto`, stored where that takes fewer passes.
        store: Where and how stored logits are kept.
        teacher_precision: Number type of the teachers' passes, whatever the student trains in.
        teachers_must_beat_chance: Refuse to learn from a teacher that is no better than chance on the data that it is
            checked on before the first step.
        optimizer: Called with the student's parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer and, where it takes total_steps or T_max, the run's number of steps. It is
            stepped after each step, so its numbers count steps; ReduceLROnPlateau is stepped after each epoch's
            validation and watches val/loss (lightning.pytorch.cli.ReduceLROnPlateau takes another `monitor`).
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.
        compile: Compile the student with torch.compile; pays on GPUs and for large nets.

    Raises:
        ValueError: If an argument is out of range, or a teacher shares weights with the student.

    Example:
        >>> module = DistillModule(student=MLP(hidden=[300]), teachers="runs/mnist/teacher", temperature=4.0)
        >>> Trainer(max_epochs=20).fit(module, datamodule=MNISTDataModule())
    """

    net_argument = "student"

    def __init__(
        self,
        student: nn.Module,
        # With Path among the types the parser takes a file's name as it is; otherwise it reads text files as options.
        teachers: str | Path | Teacher | list[str | Path | Teacher | nn.Module] | nn.Module | None = None,
        temperature: float | Linear = 20.0,
        soft_weight: float | Linear = 0.25,
        label_smoothing: float = 0.0,
        soft_loss: SoftLoss | None = None,
        feature_losses: list[FeatureLoss] | None = None,
        averaging: Averaging = "arithmetic",
        teacher_weights: list[float] | None = None,
        soft_targets: Mode = "auto",
        store: StoreOptions = StoreOptions(),  # noqa: B008  # frozen
        teacher_precision: Precision = "float32",
        teachers_must_beat_chance: bool = True,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_norm: float | None = None,
        compile: bool = False,  # noqa: A002  # torch's own word
    ) -> None:
        super().__init__(student, optimizer, scheduler, max_norm, compile)
        distiller = Distiller(
            teachers,
            temperature,
            soft_weight,
            label_smoothing,
            soft_loss,
            feature_losses,
            averaging,
            teacher_weights,
            soft_targets,
            store,
            teacher_precision,
            teachers_must_beat_chance,
        )
        refuse_shared_weights(student, distiller.options.teachers)
        self.learns_from_labels_only = not distiller.needs_teachers
        # No child: in checkpoints its parts have the names that they have here.
        self.__dict__["distiller"] = distiller
        self.soft_loss = distiller.soft_loss
        self.feature_losses = distiller.feature_losses

    distiller: Distiller
    temperature: float = _of_distiller("temperature")
    soft_weight: float = _of_distiller("soft_weight")
    teachers: FrozenEnsemble | None = _of_distiller("teachers")
    live_teachers: LiveTeachers | None = _of_distiller("live_teachers")
    source: TeacherSource | None = _of_distiller("source")
    teacher_records: list[dict[str, Any]] = _of_distiller("teacher_records")

    @property
    def student(self) -> nn.Module:
        """The net that trains."""
        return self.net

    def configure_callbacks(self) -> list[Callback]:
        """The curves of the training, and what loads, checks and stores the teachers."""
        return [*super().configure_callbacks(), *self.distiller.callbacks(self.net)]

    def setup(self, stage: str) -> None:
        """Have the tests measure the agreement with the teachers, where they are loaded."""
        self.test_metrics = EvaluationMetrics(with_teachers=self.live_teachers is not None)

    def losses(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """What `Distiller.forward` computes and, where the step is logged, the shares of soft and hard in the gradient.

        Arguments as in `ClassifierModule.losses`.
        """
        losses: dict[str, Tensor] = self.distiller(batch, logits)
        if "soft_loss" in losses and self.step_is_logged and logits.requires_grad:
            soft, hard = self.soft_weight * losses["soft_loss"], (1 - self.soft_weight) * losses["hard_loss"]
            losses |= gradient_shares(logits, soft=soft, hard=hard)
        return losses

    def teacher_log_probs(self, inputs: Inputs) -> Tensor | None:
        """Log-probabilities of the averaged live teachers at T = 1, (batch, classes); None without live teachers.

        They are of the teachers' own logits, also where the soft loss changes these first.

        Args:
            inputs: (batch, ...), as the teachers take them.
        """
        if self.live_teachers is None or logits_files(self.live_teachers.ensemble):  # which answer no new inputs
            return None
        live = self.live_teachers
        return replace(live.softener, prepare=None)(live.ensemble(inputs), 1.0).log_probs
