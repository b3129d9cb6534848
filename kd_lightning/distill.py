"""DistillModule: a student trained on the teachers' soft targets and the labels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from kd_lightning.checkpoints import RECORD_KEY
from kd_lightning.classifier import ClassifierModule
from kd_lightning.ensemble import (
    FrozenEnsemble,
    Precision,
    Teacher,
    listed_teachers,
    load_teachers,
    refuse_shared_weights,
)
from kd_lightning.loader import Batch
from kd_lightning.losses import (
    Averaging,
    check_temperature,
    entropy,
    hard_loss,
    soft_divergence,
    soft_target_log_probs,
    teacher_shares,
)
from kd_lightning.metrics import TestMetrics
from kd_lightning.optimization import SchedulerCallable
from kd_lightning.precision import note_slow_bfloat16
from kd_lightning.soft_targets import SoftTargetStore, open_store
from kd_lightning.store_plan import Mode, StoreOptions, ViewedData, decide, store_spec
from kd_lightning.teacher_check import check_teachers


class DistillModule(ClassifierModule):
    """Train a student on soft_weight * soft loss + (1 - soft_weight) * hard loss.

    The soft loss is T^2 * KL(soft targets || student's softmax at T), the hard loss the cross-entropy with the
    labels at T = 1 (Hinton et al. 2015, section 2). With soft_weight 0 it is the plain student, which needs no
    teacher.

    Args:
        student: The net to train; maps inputs to logits (batch, classes).
        teachers: A checkpoint, a run's folder (its best checkpoint, or its last where there was no validation),
            a glob of either, a module, or a list of such. Modules are copied when a fit begins: your own stay as they
            are.
        temperature: T in [0.001, 1000], no unit, divides the logits of teachers and student in the soft loss.
        soft_weight: Share of the soft loss, in [0, 1].
        averaging: How the teachers' softened distributions are combined, arithmetic or geometric mean.
        teacher_weights: One number >= 0 per teacher; equal weights by default.
        soft_targets: Where the teachers' logits come from: `live`, their pass over each batch; `stored`, computed once
            and kept on disk; `auto`, stored where that takes fewer passes.
        store: Where and how stored logits are kept.
        teacher_precision: Number type of the teachers' passes, whatever the student trains in.
        teachers_must_beat_chance: Refuse to learn from a teacher that is no better than chance on the data that it is
            checked on before the first step.
        optimizer: Called with the student's parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer and the run's number of steps; stepped after each step.
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.
        compile: Compile the student with torch.compile; pays on GPUs and for large nets.

    Raises:
        ValueError: If an argument is out of range, or a teacher shares weights with the student.
    """

    teachers: FrozenEnsemble | None

    def __init__(
        self,
        student: nn.Module,
        teachers: str | list[str | nn.Module] | nn.Module | None = None,
        temperature: float = 20.0,
        soft_weight: float = 0.9,
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
        check_temperature(temperature)
        if not 0 <= soft_weight <= 1:
            raise ValueError(f"soft_weight must be in [0, 1], got {soft_weight}")
        self.teacher_spec = [] if teachers is None else listed_teachers(teachers)
        refuse_shared_weights(student, self.teacher_spec)
        self.temperature = temperature
        self.soft_weight = soft_weight
        self.averaging: Averaging = averaging
        self.teacher_weights = teacher_weights
        self.soft_targets: Mode = soft_targets
        self.plan_only = False  # in a dry run: say whether soft targets would be stored, and run the teachers live
        self.store_options = store
        self.teacher_precision: Precision = teacher_precision
        self.teachers_must_beat_chance = teachers_must_beat_chance
        self._store: SoftTargetStore | None = None  # open while a fit runs
        self._stored: bool | None = None  # what was decided, kept in checkpoints
        self.teacher_records: list[dict[str, Any]] = []
        self._hold(None)

    @property
    def student(self) -> nn.Module:
        """The net that trains."""
        return self.net

    def setup(self, stage: str) -> None:
        """Load the teachers; each fit loads them again, since modules may have been trained on in between.

        Args:
            stage: fit and validate need them where soft_weight > 0; test takes them to measure the agreement
                with them, and does without where their files are gone.

        Raises:
            FileNotFoundError: If a teacher is missing.
            ValueError: If teachers are needed and none is named, one can't be used, or the precision can't train.
        """
        super().setup(stage)
        if self.soft_weight > 0 and not self.teacher_spec and stage in {"fit", "validate"}:
            raise ValueError(
                f"soft_weight is {self.soft_weight} and no teachers are given; name them with "
                "--model.init_args.teachers, or set soft_weight to 0 for the plain student"
            )
        missing = self.teachers is None or stage == "fit"
        if missing and self.teacher_spec and stage != "predict":
            try:
                loaded = load_teachers(self.teacher_spec)
            except FileNotFoundError as error:
                if stage in {"fit", "validate"}:
                    raise
                rank_zero_info(f"agreement with the teachers is not measured: {error}")
                return
            self._use(loaded)
            if self.teacher_precision == "bfloat16":
                note_slow_bfloat16("teacher_precision bfloat16", self.trainer.strategy.root_device)
        self.test_metrics = TestMetrics(with_teachers=self.teachers is not None)

    def losses(self, batch: Any, logits: Tensor) -> dict[str, Tensor]:  # Any: also a user's own tuple
        """Loss, hard loss and, where soft_weight > 0, soft loss and soft cross-entropy.

        Arguments as in `ClassifierModule.losses`.
        """
        hard = hard_loss(student_logits=logits, labels=batch[1])
        if self.soft_weight == 0:
            return {"loss": hard, "hard_loss": hard}
        targets = self._target_log_probs(batch)
        divergence = soft_divergence(student_logits=logits, target_log_probs=targets, temperature=self.temperature)
        soft = self.temperature**2 * divergence
        return {
            "loss": hard.lerp(soft, self.soft_weight),  # soft_weight * soft + (1 - soft_weight) * hard
            "soft_loss": soft,
            "hard_loss": hard,
            "soft_cross_entropy": divergence.detach() + entropy(targets),
        }

    def logged_step_scalars(self, losses: dict[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """Which share of the gradient comes from the soft and from the hard loss, as norms at the logits.

        At the logits since that costs next to nothing; what lies behind them is the same for both.
        """
        if "soft_loss" not in losses:
            return {}
        weights = {"soft": self.soft_weight, "hard": 1 - self.soft_weight}
        norms = {
            name: weight * torch.autograd.grad(losses[f"{name}_loss"], logits, retain_graph=True)[0].float().norm()
            for name, weight in weights.items()
        }
        total = sum(norms.values(), torch.zeros((), device=logits.device)).clamp(min=torch.finfo(torch.float32).tiny)
        return {f"{name}_gradient_share": norm / total for name, norm in norms.items()}

    def softened_targets(self, inputs: Tensor) -> Tensor:
        """Log of the soft targets at this run's T, (batch, classes), from the live teachers.

        Args:
            inputs: (batch, ...), as the teachers take them.

        Raises:
            RuntimeError: If there are no teachers or they are not loaded.
        """
        if self.teachers is None:
            raise RuntimeError("the teachers are not loaded; setup has not run")
        return self._average(self.teachers(inputs), self.temperature)

    def teacher_log_probs(self, inputs: Tensor) -> Tensor | None:
        """Log-probabilities of the averaged teachers at T = 1, (batch, classes); None without teachers.

        Args:
            inputs: (batch, ...), as the teachers take them.
        """
        return None if self.teachers is None else self._average(self.teachers(inputs), 1.0)

    def on_train_start(self) -> None:
        """Check the teachers on the validation split, or on some training images where there is none; open the store.

        Raises:
            ValueError: If a teacher is no better than chance, student and teachers differ in classes, or stored soft
                targets are asked for and not possible.
        """
        super().on_train_start()
        if self.teachers is not None:
            self._classes = check_teachers(
                self, self.teachers, self.teacher_records, must_beat_chance=self.teachers_must_beat_chance
            )
            if self.soft_weight > 0:
                self._open_store(self.teachers)

    def on_fit_end(self) -> None:
        """Go back to the live teachers."""
        self._store = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the teachers' fingerprints."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[RECORD_KEY] |= {
            "teachers": [record["fingerprint"] for record in self.teacher_records],
            "soft_targets_stored": self._stored,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on training with other teachers than those the run began with.

        Raises:
            ValueError: If the teachers' fingerprints differ.
        """
        super().on_load_checkpoint(checkpoint)
        record = checkpoint.get(RECORD_KEY, {})
        before, self._stored = record.get("teachers"), record.get("soft_targets_stored")
        training = self._trainer is not None and self._trainer.state.fn == "fit"
        if not training or before is None:
            return
        now = [record["fingerprint"] for record in self.teacher_records]
        if before != now:
            raise ValueError(
                f"this run began with other teachers: expected fingerprints {_short(before)}, got {_short(now)} "
                f"from {[record['source'] for record in self.teacher_records]}; "
                "bring the old teachers back or start a new run"
            )

    @property
    def _net_argument(self) -> str:
        return "student"

    def _hold(self, ensemble: FrozenEnsemble | None) -> None:
        # Not registered as a child: the teachers stay out of checkpoints, optimizer and DDP.
        self.__dict__["teachers"] = ensemble

    def _apply(self, fn: Any, recurse: bool = True) -> Any:  # Any: torch's own signature
        """Move the unregistered teachers along with the module; their number type stays."""
        applied = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.teachers is not None:
            self.teachers.to(self.device)
        return applied

    def _use(self, loaded: Sequence[Teacher]) -> None:
        teacher_shares(self.teacher_weights, len(loaded))
        ensemble = FrozenEnsemble(loaded, self.teacher_precision)
        self._hold(ensemble.to(self.device))
        self.teacher_records = [teacher.record() for teacher in ensemble.teachers]

    def _target_log_probs(self, batch: Any) -> Tensor:
        """Log of the soft targets of a batch, stored or live, (batch, classes)."""
        if self._store is not None:
            if not isinstance(batch, Batch):
                raise ValueError(
                    f"stored soft targets need batches of type kd_lightning.Batch, got {type(batch).__name__}; "
                    "set soft_targets to live"
                )
            return self._store.target_log_probs(batch.indices, batch.views)
        return self.softened_targets(batch[0])

    def _open_store(self, ensemble: FrozenEnsemble) -> None:
        data = getattr(self.trainer, "datamodule", None)
        spec = None
        if self.soft_targets != "live":
            spec = store_spec(ensemble, data, options=self.store_options, temperature=self.temperature)
        mode: Mode = self.soft_targets
        if mode == "auto" and self._stored is not None:
            mode = "stored" if self._stored else "live"  # a resumed run goes on as it began
        batches = self.trainer.estimated_stepping_batches * self.trainer.accumulate_grad_batches
        loader: Any = self.trainer.train_dataloader  # Any: ours, or a user's own with or without a length
        epoch: float
        try:
            epoch = len(loader)
        except TypeError:  # an iterable data set has none
            epoch = self.trainer.num_training_batches
        stored, reason = decide(
            mode,
            data,
            epochs=batches / epoch,
            spec=spec,
            classes=self._classes,
            options=self.store_options,
        )
        if self._stored is not None and self.soft_targets == "auto":
            reason = "as the run began"
        self._stored = stored
        rank_zero_info(f"soft targets: {'stored' if stored else 'live'} ({reason})")
        if self.plan_only:
            return
        if stored and spec is not None and isinstance(data, ViewedData):
            self._store = open_store(
                spec, ensemble, data, options=self.store_options, device=self.device, say=rank_zero_info
            )
            self._store.average(partial(self._average, temperature=self.temperature))

    def _average(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        return soft_target_log_probs(
            teacher_logits=teacher_logits,
            temperature=temperature,
            averaging=self.averaging,
            weights=self.teacher_weights,
        )


def _short(fingerprints: Sequence[str]) -> list[str]:
    return [text[:12] for text in fingerprints]
