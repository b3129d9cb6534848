"""Distiller: the method. What a student that learns from teachers minimises, in any LightningModule."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.methods.base import FeatureLoss, SoftLoss
from kd_lightning.methods.hinton import (
    KL,
    Averaging,
    check_temperature,
    hard_loss,
    soft_cross_entropy,
)
from kd_lightning.methods.taps import FeatureTerms
from kd_lightning.modules.schedules import Linear, ScheduleSteps
from kd_lightning.modules.teacher_setup import TeacherSetup
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher, Precision, weights_of
from kd_lightning.teachers.loading import load_teachers
from kd_lightning.teachers.named import NamedTeacher, Teacher, listed_teachers
from kd_lightning.teachers.source import LiveTeachers, Softener, TeacherSource
from kd_lightning.teachers.store_plan import Mode, StoreOptions


@dataclass(frozen=True)
class TeacherOptions:
    """Who teaches and how their answers are made into soft targets; each is an argument of `Distiller`."""

    teachers: Sequence[NamedTeacher]
    averaging: Averaging
    weights: Sequence[float] | None
    mode: Mode
    store: StoreOptions
    precision: Precision
    must_beat_chance: bool

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Share it: weight averaging in Lightning copies the whole module, and a user's teachers may be large."""
        return self


class Distiller(LightningModule):
    """The loss of a student that learns from teachers; `DistillModule` is built on it.

    Make it an attribute of a LightningModule of your own, and use its loss in `training_step`. Any Trainer then loads
    the teachers, checks them before the first step, stores their logits where the data allows, and refuses to resume
    with other teachers. The teachers stay out of your module's checkpoint and optimizer. A module takes one Distiller,
    with any number of teachers.

    Args:
        teachers: A checkpoint, a run's folder (its best checkpoint, or its last where there was no validation),
            a glob of either, a file of logits (.npy or .safetensors, see `LogitsFile`), a module, a `Teacher` (one with
            its own inputs, classes or weights file), or a list of such. Modules are copied when a fit begins: your own
            stay as they are.
        temperature: T in [0.001, 1000], no unit, divides the logits of teachers and student in the soft loss; a number,
            or a `Linear` schedule over the run.
        soft_weight: Share of the soft loss, in [0, 1]; a number or a `Linear` schedule.
        label_smoothing: Share of the labels that the hard loss spreads evenly over all classes, in [0, 1).
        soft_loss: What compares the student's logits with the soft targets; KL by default.
        feature_losses: Further terms that compare activations; each is added with its own weight. They name your
            module's layers by their paths in it, such as net.3.
        averaging: How the teachers' softened distributions are combined, arithmetic or geometric mean.
        teacher_weights: One number >= 0 per teacher; equal weights by default.
        soft_targets: Where the teachers' logits come from: `live`, their pass over each batch; `stored`, computed once
            and kept on disk; `auto`, stored where that takes fewer passes. Only `TransferData` can be stored.
        store: Where and how stored logits are kept.
        teacher_precision: Number type of the teachers' passes, whatever the student trains in.
        teachers_must_beat_chance: Refuse to learn from a teacher that is no better than chance on the data that it is
            checked on before the first step.

    Attributes:
        temperature: T of the current step.
        soft_weight: Share of the soft loss in the current step.
        schedules: The schedules of these two, by name; empty where both stay as they are.
        source: Where a batch's soft targets come from; None before the teachers are loaded.
        live_teachers: The loaded teachers.
        teacher_records: The entries of teachers.json.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> class Mine(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = MyNet()
        ...         self.distiller = Distiller(teachers="runs/mnist/teacher", temperature=4.0)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return self.distiller(batch, self.net(batch[0]))["loss"]
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        temperatures, weights = Linear.of(temperature), Linear.of(soft_weight)
        for each in temperatures:
            check_temperature(each)
        for each in weights:
            if not 0 <= each <= 1:
                raise ValueError(f"soft_weight must be in [0, 1], got {each}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        named = {"temperature": temperatures, "soft_weight": weights}
        self.schedules = {name: value for name, value in named.items() if value.start != value.end}
        self.temperature = temperatures.end  # of a schedule, what counts outside a training
        self.soft_weight = weights.end
        self.label_smoothing = label_smoothing
        self.soft_loss = soft_loss or KL()
        self.feature_losses = FeatureTerms(feature_losses or [])
        listed = [] if teachers is None else listed_teachers(teachers)
        self.options = TeacherOptions(
            listed, averaging, teacher_weights, soft_targets, store, teacher_precision, teachers_must_beat_chance
        )
        # Neither is a module, so the teachers inside are no children: they stay out of checkpoints, optimizer and DDP.
        self.live_teachers: LiveTeachers | None = None
        self.source: TeacherSource | None = None
        self.teacher_records: list[dict[str, Any]] = []

    def forward(self, batch: Any, logits: Tensor) -> dict[str, Tensor]:  # Any: also a user's own tuple
        """Loss, hard loss and, with teachers, soft loss, soft cross-entropy and each feature loss.

        Args:
            batch: As the data gives it, a `Batch` or `(inputs, labels, ...)`, on the device. With stored soft targets
                it must be the whole `Batch`, which knows its rows.
            logits: (batch, classes) float, what the student answers to its inputs, before softmax.

        Returns:
            Scalars in nats per example; `loss` is to be minimised. Another soft loss than KL also has its own name.

        Raises:
            RuntimeError: If the teachers are not loaded.
        """
        batch = Batch.of(batch)
        hard = hard_loss(student_logits=logits, labels=batch.labels, smoothing=self.label_smoothing)
        if not self.needs_teachers:  # the plain student
            return {"loss": hard, "hard_loss": hard}
        if self.source is None:
            raise RuntimeError(
                "the teachers are not loaded: a Trainer loads them where the Distiller is an attribute of the "
                "LightningModule itself; in a loop of your own call its load first"
            )
        targets = self.source(batch, self.temperature)
        if targets is None:  # validation rows that a file of logits lacks
            return {"loss": hard, "hard_loss": hard}
        soft = self.soft_loss(logits, targets, batch.labels)
        loss = hard.lerp(soft, self.soft_weight)  # soft_weight * soft + (1 - soft_weight) * hard
        terms: dict[str, Tensor] = {}
        if self.feature_losses:
            weighted, terms = self.feature_losses()
            loss = loss + weighted
        cross_entropy = soft_cross_entropy(student_logits=logits.detach(), targets=targets)
        own_name = {} if type(self.soft_loss) is KL else {self.soft_loss.name: soft}  # comparable among its like
        return {
            **own_name,
            "loss": loss,
            "soft_loss": soft,
            "hard_loss": hard,
            "soft_cross_entropy": cross_entropy,
            **terms,
            **self.soft_loss.logged(),
        }

    @property
    def needs_teachers(self) -> bool:
        """Whether the loss has a part that teachers are needed for."""
        return self.soft_weight > 0 or "soft_weight" in self.schedules or len(self.feature_losses) > 0

    @property
    def teachers(self) -> FrozenEnsemble | None:
        """The live teachers; None without, or before they are loaded."""
        return None if self.live_teachers is None else self.live_teachers.ensemble

    def load(self, device: str | torch.device = "cpu") -> None:
        """Load the teachers; a Trainer's fit does so by itself.

        Args:
            device: Where the batches will be.

        Raises:
            FileNotFoundError: If a teacher is missing.
            ValueError: If none is named, or one can't be used.
        """
        self.use(load_teachers(self.options.teachers))
        if self.teachers is not None:
            self.teachers.to(device)

    def use(self, teachers: Sequence[LoadedTeacher]) -> None:
        """Use these live teachers, which are frozen.

        Args:
            teachers: At least one.

        Raises:
            ValueError: If there is none.
        """
        ensemble = FrozenEnsemble(teachers, self.options.precision)
        self.teacher_records = [teacher.record() for teacher in ensemble.teachers]
        weights = weights_of(teachers, self.options.weights)
        softener = Softener(self.options.averaging, weights, self.soft_loss.prepare)
        self.live_teachers = LiveTeachers(ensemble, softener)
        self.source = self.live_teachers if self.needs_teachers else None

    def callbacks(self, student: nn.Module) -> list[Callback]:
        """What loads, checks and stores the teachers and, where there are schedules, follows them.

        Args:
            student: The net whose layers feature losses name.
        """
        setup = TeacherSetup(self, student)
        return [setup, ScheduleSteps(self)] if self.schedules else [setup]

    @property
    def trainer(self) -> Trainer:
        """The trainer of the module that this is an attribute of."""
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        """Have the trainer load and check the teachers.

        Lightning sets it, before each run, in all LightningModules that are attributes of the one that runs.
        """
        inherited: Any = LightningModule.trainer  # Any: a property, whatever type checkers see
        inherited.fset(self, trainer)
        if trainer is None:
            return
        if sum(isinstance(part, Distiller) for part in trainer.lightning_module.children()) > 1:
            raise ValueError("a LightningModule takes one Distiller, got several; give one of them all teachers")
        others = [each for each in trainer.callbacks if not isinstance(each, TeacherSetup | ScheduleSteps)]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, *self.callbacks(trainer.lightning_module)]  # type: ignore[attr-defined]  # set by Lightning's connector
