"""TeacherSetup: loads, checks and stores a student's teachers, so that the module only has to call them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, first_of
from kd_lightning.data.transfer_data import data_of, transfer_data
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.precision import note_slow_bfloat16
from kd_lightning.nets.description import in_eval_mode
from kd_lightning.runs.checkpoints import RECORD_KEY
from kd_lightning.teachers.file_check import check_all
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.named import refuse_shared_weights
from kd_lightning.teachers.source import StoredTeachers, choose_source
from kd_lightning.teachers.store_plan import Mode

if TYPE_CHECKING:
    from kd_lightning.modules.distiller import Distiller


class TeacherSetup(LeanCallback):
    """Gives a `Distiller` its teachers.

    Before anything runs it loads them. Before the first training step it counts their errors, and decides whether their
    logits are stored. Their fingerprints go into checkpoints, and a run does not go on with other teachers.

    Args:
        distiller: The distiller that gets the teachers.
        student: The net whose layers feature losses name.

    Attributes:
        fill_store: Whether a store may be filled; a dry run only logs whether it would be.
        must_store: Whether `auto` stores, many passes or few, for runs to come.
    """

    def __init__(self, distiller: "Distiller", student: nn.Module) -> None:
        self.distiller = distiller
        self.student = student
        self.fill_store = True
        self.must_store = False
        self._stored: bool | None = None  # what was decided, kept in checkpoints

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the teachers; each fit loads them again.

        Args:
            trainer: The run's.
            pl_module: The module that the distiller is an attribute of.
            stage: fit and validate need them where soft_weight > 0; test takes them to measure the agreement
                with them, and does without where their files are gone.

        Raises:
            FileNotFoundError: If a teacher is missing.
            ValueError: If teachers are needed and none is named, or one can't be used.
        """
        distiller = self.distiller
        if not belongs_to(distiller, pl_module):
            trainer.callbacks = [each for each in trainer.callbacks if each is not self]  # type: ignore[attr-defined]
            return  # the trainer ran another module before
        named, training = distiller.options.teachers, stage in {"fit", "validate"}
        if training and distiller.needs_teachers and not named and distiller.source is None:
            raise ValueError(
                f"soft_weight is {distiller.soft_weight} and no teachers are given; name them with "
                "teachers (--model.init_args.teachers), or set soft_weight to 0 for the plain student"
            )
        if not named or stage == "predict":
            return
        if distiller.live_teachers is None or stage == "fit":  # modules may have been trained on in between
            refuse_shared_weights(self.student, named)
            try:
                distiller.load()
            except FileNotFoundError as error:
                if training:
                    raise
                rank_zero_info(f"agreement with the teachers is not measured: {error}")
                return
            if distiller.options.precision == "bfloat16":
                note_slow_bfloat16("teacher_precision bfloat16", trainer.strategy.root_device)
        if not self._bind_files(trainer, stage):
            return
        distiller.source = distiller.live_teachers if distiller.needs_teachers else None
        if training and distiller.feature_losses:
            self._build_feature_losses(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the teachers to the student's device. Lightning does not: they are no child of the module."""
        if self.distiller.teachers is not None:
            self.distiller.teachers.to(pl_module.device)

    on_validation_start = on_test_start = on_fit_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the teachers on the validation split, or on some training examples where there is none; open the store.

        Raises:
            ValueError: If a teacher is no better than chance, student and teachers differ in classes, or stored soft
                targets are asked for and not possible.
        """
        distiller, options = self.distiller, self.distiller.options
        live = distiller.live_teachers
        if live is None:
            return
        classes = check_all(
            pl_module, live.ensemble, distiller.teacher_records, must_beat_chance=options.must_beat_chance
        )
        if distiller.source is None:
            return
        distiller.source = choose_source(
            live,
            self._mode(),
            resumed=self._stored,
            data=data_of(trainer),
            epochs=_epochs(trainer),
            classes=classes,
            options=options.store,
            features=len(distiller.feature_losses) > 0,
            fill=self.fill_store,
            device=pl_module.device,
        )
        self._stored = isinstance(distiller.source, StoredTeachers)
        if isinstance(distiller.source, StoredTeachers) and "temperature" not in distiller.schedules:
            distiller.source.average_all(distiller.temperature)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the live teachers."""
        if self._stored:
            self.distiller.source = self.distiller.live_teachers

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the nets as they were: without taps."""
        self.distiller.feature_losses.detach()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the teachers' fingerprints and weights."""
        checkpoint.setdefault(RECORD_KEY, {}).update(
            teachers=[record["fingerprint"] for record in self.distiller.teacher_records],
            teacher_weights=[record["weight"] for record in self.distiller.teacher_records],
            soft_targets_stored=self._stored,
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the teachers into the order of the interrupted run; their files may have moved.

        Raises:
            ValueError: If the teachers' fingerprints or weights are others.
        """
        record = checkpoint.get(RECORD_KEY, {})
        fingerprints, self._stored = record.get("teachers"), record.get("soft_targets_stored")
        if trainer.state.fn != "fit" or fingerprints is None:
            return
        weights = record.get("teacher_weights", [1.0] * len(fingerprints))  # older runs gave them none
        records, ensemble = self.distiller.teacher_records, self.distiller.teachers
        before = list(zip(fingerprints, weights, strict=True))
        now = [(teacher["fingerprint"], teacher["weight"]) for teacher in records]
        if sorted(before) != sorted(now):
            raise ValueError(
                f"this run began with other teachers: expected fingerprints and weights {_short(before)}, got "
                f"{_short(now)} from {[teacher['source'] for teacher in records]}; "
                "bring the old teachers back or start a new run"
            )
        if ensemble is not None and before != now:  # a glob finds renamed teachers in another order
            by_identity = dict(zip(now, ensemble.teachers, strict=True))
            self.distiller.use([by_identity[each] for each in before])

    def _bind_files(self, trainer: Trainer, stage: str) -> bool:
        """Bind files of logits to the data's rows. Returns whether the teachers can answer in this stage."""
        ensemble = self.distiller.teachers
        files = {} if ensemble is None else logits_files(ensemble)
        if files and stage == "test":
            rank_zero_info("agreement with the teachers is not measured: a file of logits answers no test images")
            self.distiller.live_teachers = None
            return False
        for file in files.values():
            file.bind(data_of(trainer))
            if self.distiller.feature_losses:
                raise ValueError(f"feature losses need the teachers' activations, and {file.path} holds logits only")
        return True

    def _mode(self) -> Mode:
        """What the user asked for; --prepare stores also if this run is too short to save time by it."""
        mode = self.distiller.options.mode
        return "stored" if self.must_store and mode == "auto" and not self.distiller.feature_losses else mode

    def _build_feature_losses(self, trainer: Trainer) -> None:
        ensemble = self.distiller.teachers
        if ensemble is None or len(ensemble) != 1:
            count = 0 if ensemble is None else len(ensemble)
            raise ValueError(f"feature losses compare the student with one teacher, got {count}")
        with in_eval_mode(self.student):
            self.distiller.feature_losses.build(self.student, ensemble.nets[0], _example(trainer))


def teacher_setups(trainer: Trainer) -> list[TeacherSetup]:
    """The trainer's callbacks that give teachers to a module."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
    return [callback for callback in callbacks if isinstance(callback, TeacherSetup)]


def belongs_to(distiller: "Distiller", module: LightningModule) -> bool:
    """Whether a module has this distiller; a trainer keeps the callbacks of the module that it ran before."""
    return any(part is distiller for part in (*vars(module).values(), *module.children()))


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


def _short(teachers: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{fingerprint[:12]} x {weight:g}" for fingerprint, weight in teachers)
