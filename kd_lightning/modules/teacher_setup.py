"""TeacherSetup: loads, checks and stores a student's teachers, so that the module only has to ask them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, first_of
from kd_lightning.data.transfer_data import data_of, transfer_data
from kd_lightning.methods.hinton import Averaging
from kd_lightning.metrics.classification import TestMetrics
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.precision import note_slow_bfloat16
from kd_lightning.nets.description import in_eval_mode
from kd_lightning.runs.checkpoints import RECORD_KEY
from kd_lightning.teachers.check import check_teachers, log_accuracies
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher, Precision, weights_of
from kd_lightning.teachers.file_check import check_files
from kd_lightning.teachers.loading import load_teachers
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.named import NamedTeacher
from kd_lightning.teachers.source import LiveTeachers, Softener, StoredTeachers, choose_source
from kd_lightning.teachers.store_plan import Mode, StoreOptions

if TYPE_CHECKING:
    from kd_lightning.modules.distill import DistillModule


@dataclass(frozen=True)
class TeacherOptions:
    """Who teaches and how their answers are made into soft targets; each is an argument of `DistillModule`."""

    teachers: Sequence[NamedTeacher] = ()
    averaging: Averaging = "arithmetic"
    weights: Sequence[float] | None = None
    mode: Mode = "auto"
    store: StoreOptions = StoreOptions()  # noqa: RUF009  # frozen
    precision: Precision = "float32"
    must_beat_chance: bool = True


class TeacherSetup(LeanCallback):
    """Gives a `DistillModule` its teachers.

    Before anything runs it loads them. Before the first training step it counts their errors, and decides whether their
    logits are stored. Their fingerprints go into checkpoints, and a run does not go on with other teachers.

    Args:
        options: Who teaches, and how.

    Attributes:
        fill_store: Whether a store may be filled; a dry run only says whether it would be.
        must_store: Whether `auto` stores, many passes or few, for runs to come.
    """

    def __init__(self, options: TeacherOptions) -> None:
        self.options = options
        self.fill_store = True
        self.must_store = False
        self._stored: bool | None = None  # what was decided, kept in checkpoints

    def setup(self, trainer: Trainer, pl_module: "DistillModule", stage: str) -> None:  # type: ignore[override]
        """Load the teachers; each fit loads them again.

        Args:
            trainer: The run's.
            pl_module: The student.
            stage: fit and validate need them where soft_weight > 0; test takes them to measure the agreement
                with them, and does without where their files are gone.

        Raises:
            FileNotFoundError: If a teacher is missing.
            ValueError: If teachers are needed and none is named, or one can't be used.
        """
        named, needed = self.options.teachers, pl_module.soft_weight > 0 or len(pl_module.feature_losses) > 0
        training = stage in {"fit", "validate"}
        if needed and training and not named:
            raise ValueError(
                f"soft_weight is {pl_module.soft_weight} and no teachers are given; name them with "
                "--model.init_args.teachers, or set soft_weight to 0 for the plain student"
            )
        if not named or stage == "predict":
            return
        if pl_module.live_teachers is None or stage == "fit":  # modules may have been trained on in between
            try:
                loaded = load_teachers(named)
            except FileNotFoundError as error:
                if training:
                    raise
                rank_zero_info(f"agreement with the teachers is not measured: {error}")
                return
            pl_module.live_teachers = self._live(loaded, pl_module)
            if self.options.precision == "bfloat16":
                note_slow_bfloat16("teacher_precision bfloat16", trainer.strategy.root_device)
        files = logits_files(pl_module.live_teachers.ensemble).values()
        if files and stage == "test":
            rank_zero_info("agreement with the teachers is not measured: a file of logits answers no test images")
            pl_module.live_teachers, pl_module.test_metrics = None, TestMetrics()
            return
        for file in files:
            file.bind(data_of(trainer))
        pl_module.source = pl_module.live_teachers if needed else None
        pl_module.test_metrics = TestMetrics(with_teachers=True)
        if training and pl_module.feature_losses:
            teachers = pl_module.live_teachers.ensemble.nets
            for file in files:
                raise ValueError(f"feature losses need the teachers' activations, and {file.path} holds logits only")
            if len(teachers) != 1:
                raise ValueError(f"feature losses compare the student with one teacher, got {len(teachers)}")
            with in_eval_mode(pl_module.net):
                pl_module.feature_losses.build(pl_module.net, teachers[0], _example(trainer))

    def on_fit_start(self, trainer: Trainer, pl_module: "DistillModule") -> None:  # type: ignore[override]
        """Move the teachers to the student's device; nobody else does, as they are no child of it."""
        _move(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: "DistillModule") -> None:  # type: ignore[override]
        """Move the teachers to the student's device."""
        _move(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: "DistillModule") -> None:  # type: ignore[override]
        """Move the teachers to the student's device."""
        _move(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: "DistillModule") -> None:  # type: ignore[override]
        """Check the teachers on the validation split, or on some training examples where there is none; open the store.

        Raises:
            ValueError: If a teacher is no better than chance, student and teachers differ in classes, or stored soft
                targets are asked for and not possible.
        """
        live = pl_module.live_teachers
        if live is None:
            return
        classes = self._check(pl_module, live.ensemble)
        if pl_module.source is None:
            return
        pl_module.source = choose_source(
            live,
            self._mode(pl_module),
            resumed=self._stored,
            data=data_of(trainer),
            epochs=_epochs(trainer),
            classes=classes,
            options=self.options.store,
            features=len(pl_module.feature_losses) > 0,
            fill=self.fill_store,
            device=pl_module.device,
        )
        self._stored = isinstance(pl_module.source, StoredTeachers)
        if isinstance(pl_module.source, StoredTeachers):
            pl_module.source.hold(pl_module.temperature)

    def on_fit_end(self, trainer: Trainer, pl_module: "DistillModule") -> None:  # type: ignore[override]
        """Go back to the live teachers."""
        pl_module.source = None if pl_module.source is None else pl_module.live_teachers

    def teardown(self, trainer: Trainer, pl_module: "DistillModule", stage: str) -> None:  # type: ignore[override]
        """Leave the nets as they were: without taps."""
        pl_module.feature_losses.detach()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: "DistillModule", checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Add the teachers' fingerprints and weights."""
        checkpoint.setdefault(RECORD_KEY, {}).update(
            teachers=[record["fingerprint"] for record in pl_module.teacher_records],
            teacher_weights=[record["weight"] for record in pl_module.teacher_records],
            soft_targets_stored=self._stored,
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: "DistillModule", checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Go on with the teachers in the order that the run began with, wherever they lie now.

        Raises:
            ValueError: If the teachers' fingerprints or weights are others.
        """
        record = checkpoint.get(RECORD_KEY, {})
        fingerprints, self._stored = record.get("teachers"), record.get("soft_targets_stored")
        if trainer.state.fn != "fit" or fingerprints is None:
            return
        weights = record.get("teacher_weights", [1.0] * len(fingerprints))  # older runs gave them none
        before = list(zip(fingerprints, weights, strict=True))
        now = [(teacher["fingerprint"], teacher["weight"]) for teacher in pl_module.teacher_records]
        if sorted(before) != sorted(now):
            raise ValueError(
                f"this run began with other teachers: expected fingerprints and weights {_short(before)}, got "
                f"{_short(now)} from {[teacher['source'] for teacher in pl_module.teacher_records]}; "
                "bring the old teachers back or start a new run"
            )
        live = pl_module.live_teachers
        if live is not None and before != now:  # a glob finds renamed teachers in another order
            by_identity = dict(zip(now, live.ensemble.teachers, strict=True))
            pl_module.live_teachers = self._live([by_identity[each] for each in before], pl_module)
            pl_module.source = None if pl_module.source is None else pl_module.live_teachers

    def _mode(self, module: "DistillModule") -> Mode:
        """What the user asked for; preparations store whether this run alone would pay for it or not."""
        prepares = self.must_store and self.options.mode == "auto" and not module.feature_losses
        return "stored" if prepares else self.options.mode

    def _check(self, module: "DistillModule", ensemble: FrozenEnsemble) -> int:
        """Count the errors of the teachers, nets and files of logits; how many classes they tell apart."""
        records, must, classes = module.teacher_records, self.options.must_beat_chance, 0
        files = logits_files(ensemble)
        nets = [number for number in range(len(ensemble)) if number not in files]
        if nets:
            asked = ensemble if not files else FrozenEnsemble([ensemble.teachers[n] for n in nets], ensemble.precision)
            classes = check_teachers(module, asked, [records[n] for n in nets], must_beat_chance=must)
        if files:
            classes = check_files(module, files, records, must_beat_chance=must)
        log_accuracies(module, records)
        return classes

    def _live(self, teachers: Sequence[LoadedTeacher], module: "DistillModule") -> LiveTeachers:
        ensemble = FrozenEnsemble(teachers, self.options.precision)
        module.teacher_records = [teacher.record() for teacher in ensemble.teachers]
        weights = weights_of(teachers, self.options.weights)
        return LiveTeachers(ensemble, Softener(self.options.averaging, weights, module.soft_loss.prepare))


def _example(trainer: Trainer) -> Inputs:
    """Inputs of one training example, (1, ...), on the CPU."""
    data = transfer_data(data_of(trainer))
    if data is not None:
        return data.inputs(data.train_rows[:1], torch.zeros(1, dtype=torch.int64))
    with torch.random.fork_rng():  # a user's own loader shuffles
        trainer.fit_loop.setup_data()
        return first_of(Batch.of(next(iter(trainer.train_dataloader or ()))).inputs)


def _epochs(trainer: Trainer) -> float:
    """How many epochs the run trains, maybe a fraction, maybe infinite."""
    batches = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
    loader: Any = trainer.train_dataloader  # Any: ours, or a user's own with or without a length
    try:
        return batches / len(loader)
    except TypeError:  # an iterable data set has none
        return batches / trainer.num_training_batches


def _move(module: "DistillModule") -> None:
    if module.live_teachers is not None:
        module.live_teachers.ensemble.to(module.device)


def _short(teachers: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{fingerprint[:12]} x {weight:g}" for fingerprint, weight in teachers)
