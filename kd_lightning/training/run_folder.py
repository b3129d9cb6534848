"""keep_run: a fit of a plain Trainer leaves the same folder as one of the command line."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from kd_lightning.data.transfer_data import data_of
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.teacher_setup import teacher_setups
from kd_lightning.nets.description import describe_object
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import DETAILS_FILE, EVENT_FILES, METRICS_FILE, shown, write_json
from kd_lightning.runs.resume import refuse_other_config, run_files
from kd_lightning.teachers.check import refuse_own_teacher
from kd_lightning.training.last_checkpoint import AtomicCheckpointIO
from kd_lightning.training.record import EvaluationRecord, metrics_record, scope_of_test
from kd_lightning.training.run_parts import callbacks_of_run, curves_logger
from kd_lightning.training.signals import StopSignals, only_fit_in

# Of the trainer, what makes a run what it is, in the words of its arguments.
_OF_TRAINER = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")


def keep_run(
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    save_every: float = 60.0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Arguments of a Trainer whose fit and test leave a run's folder: `report`, `export` and other students read it.

    The folder gets config.yaml, teachers.json, checkpoints, event files for TensorBoard and, by the trainer's `test`,
    metrics.json. Nothing is written elsewhere, but for the stored logits of teachers, see `StoreOptions`.

    Args:
        folder: Of the run, such as runs/mine/student.
        callbacks: Your own ones.
        loggers: Your own ones, such as `History`.
        save_every: Seconds between two writes of last.ckpt, from which a killed run goes on, >= 0:
            `trainer.fit(..., ckpt_path="runs/mine/student/checkpoints/last.ckpt")`. Other settings are refused.
        overwrite: Start over where the folder holds a run already; the old run is deleted before the first step.

    Raises:
        ValueError: If save_every is out of range. The fit itself raises a FileExistsError where the folder holds
            another run, or a teacher of the run that overwrites it, and a BlockingIOError while another fit has it.

    Example:
        >>> trainer = Trainer(max_epochs=10, **keep_run("runs/mine/student"))
        >>> trainer.fit(student, data)
        >>> trainer.test(student, data)
    """
    run, config = Path(folder), dict[str, Any]()
    replaced = list(run_files(run)) if overwrite else []
    last = run / CHECKPOINT_DIR / LAST
    done = read_checkpoint(last)["global_step"] if last.is_file() and not overwrite else 0
    parts = callbacks_of_run(
        run,
        config,
        typed=(),
        replaced=replaced,
        signals=_NoSignals(),
        save_every=save_every,
        pictures_every=0,
    )
    return {
        "default_root_dir": run,
        "logger": [curves_logger(run, done or None), *loggers],
        "plugins": [AtomicCheckpointIO()],
        "callbacks": [
            *callbacks,
            _OnlyFit(run),
            _RunConfig(run, config, replaced if overwrite else None),
            *parts,
            _TestRecord(run, config),
        ],
    }


class _NoSignals(StopSignals):
    """Leaves the signals to the script or notebook that runs the fit."""

    def install(self) -> None:
        """Do nothing."""


class _OnlyFit(LeanCallback):
    """Locks the run's folder while a fit runs.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._exit_stack = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: If another fit has it.
        """
        if stage == "fit" and trainer.is_global_zero:
            self._exit_stack.enter_context(only_fit_in(self.run))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release it."""
        self._exit_stack.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release it."""
        self._exit_stack.close()


class _RunConfig(LeanCallback):
    """Fills in the run's configuration when the fit knows its parts, in the form that the command line gives it.

    Args:
        run: The run's folder.
        config: Filled in place; other callbacks write it.
        replaced: Files of a run that the folder holds, which another callback deletes; what has come since is added.
            None where such a run must be resumed.
    """

    def __init__(self, run: Path, config: dict[str, Any], replaced: list[Path] | None) -> None:
        self.run = run
        self.config = config
        self.replaced = replaced
        self.taken: bool | None = None  # whether there is a run that must be resumed; the first fit looks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Describe module, data and trainer, and look what the folder holds, now that no other fit can use it."""
        if stage != "fit":
            return
        self.config.update(run_config(trainer, pl_module, self.run))
        if self.taken is None:
            found = [
                file for file in run_files(self.run) if not file.match(EVENT_FILES)
            ]  # the loggers have begun theirs
            self.taken = bool(found) and self.replaced is None
            if self.replaced is not None:
                self.replaced += [file for file in found if file not in self.replaced]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a fit go on that resumes the run, with the run's own settings.

        Raises:
            ValueError: If module, data or trainer have others.
        """
        self.taken = False
        resumes = trainer.state.fn == TrainerFn.FITTING  # a test loads a checkpoint too
        if resumes and checkpoint.get(RECORD_KEY, {}).get("config"):  # which one of a plain Trainer lacks
            refuse_other_config(checkpoint, Path(str(trainer.ckpt_path)), self.config)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to mix two runs, and to delete a teacher of this one.

        Raises:
            FileExistsError: If the folder holds another run, or a teacher where the run in it is to be deleted.
        """
        if self.taken:
            raise FileExistsError(
                f"{self.run} already holds a run; start over with keep_run(..., overwrite=True), choose another "
                f"folder, or go on with fit(..., ckpt_path={str(self.run / CHECKPOINT_DIR / LAST)!r})"
            )
        if self.replaced:
            for setup in teacher_setups(trainer):
                refuse_own_teacher(self.run, setup.distiller.options.teachers)


def run_config(trainer: Trainer, module: LightningModule, run: Path) -> dict[str, Any]:
    """What config.yaml says of a run that was made in Python.

    Args:
        trainer: With its data.
        module: The module that trains.
        run: The run's folder.
    """
    seed, data = os.environ.get("PL_GLOBAL_SEED"), data_of(trainer)
    stopping = [each for each in trainer.callbacks if isinstance(each, EarlyStopping | Timer)]  # type: ignore[attr-defined]  # set by Lightning's connector
    options = {name: getattr(trainer, name) for name in _OF_TRAINER}
    if trainer.limit_val_batches != 1.0 or isinstance(trainer.limit_val_batches, int):  # 1.0 is all, 1 is one batch
        options["limit_val_batches"] = trainer.limit_val_batches
    return {
        "seed_everything": int(seed) if seed else None,
        "run_dir": shown(run),
        "model": _described_module(module),
        **({} if data is None else {"data": describe_object(data)}),
        "trainer": options | ({"callbacks": [describe_object(each) for each in stopping]} if stopping else {}),
    }


def _described_module(module: LightningModule) -> dict[str, Any]:
    """The class and arguments of a module, with its net, schedule and losses."""
    described = describe_object(module)
    if not isinstance(module, ClassifierModule):
        return described
    given = {module.net_argument: describe_object(module.net), **module.hparams}
    for name, made in (("optimizer", module.optimizer_of), ("scheduler", module.scheduler_of)):
        if found := _described_callable(made):
            given[name] = found
    soft_loss = getattr(module, "soft_loss", None)
    if soft_loss is not None and type(soft_loss).__name__ != "KL":  # the default
        given["soft_loss"] = describe_object(soft_loss)
    terms = list(getattr(module, "feature_losses", {}).values())
    if terms:
        given["feature_losses"] = [describe_object(term) for term in terms]
    return described | {"init_args": given}


def _described_callable(made: Callable[..., Any] | None) -> dict[str, Any] | None:
    """A class, or one with some of its arguments; None for a function, which has no class_path."""
    call, keywords = (made.func, made.keywords) if isinstance(made, partial) else (made, {})
    if not isinstance(call, type):
        return None
    return {"class_path": f"{call.__module__}.{call.__qualname__}", "init_args": dict(keywords)}


class _TestRecord(EvaluationRecord):
    """Writes metrics.json and details.json when the trainer tests, as `test` of the command line does.

    Args:
        run: The run's folder.
        config: The run's configuration.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        super().__init__(run / DETAILS_FILE)
        self.run = run
        self.config = config
        self._tested: Path | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the checkpoint that is tested; without one the result would belong to no run."""
        self._tested = None
        if not isinstance(pl_module, ClassifierModule):
            kept = "metrics are kept for TeacherModule and DistillModule only"
            rank_zero_info(f"no metrics are kept: {kept}, got {type(pl_module).__name__}")
            return
        self._tested = _tested_checkpoint(trainer, pl_module, self.run)
        if self._tested is None:
            rank_zero_info(
                f"no metrics are kept: the tested net is not that of {self.run / CHECKPOINT_DIR / LAST}; "
                "name its checkpoint, test(..., ckpt_path=...)"
            )
            return
        limits = {"fast_dev_run": trainer.fast_dev_run, "limit_test_batches": trainer.limit_test_batches}  # type: ignore[attr-defined]  # set by Lightning's connector
        now = run_config(trainer, pl_module, self.run) | {"trainer": limits}
        saved = read_checkpoint(self._tested).get(RECORD_KEY, {}).get("config")
        self._scope = scope_of_test(now, saved, data_of(trainer), self._tested, self.run)
        self.file = self.run / self._scope.details_file

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write details.json."""
        if self._tested is not None:
            super().on_test_epoch_end(trainer, pl_module)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics.json, or metrics-other.json where the result is not the run's own."""
        if self._tested is None or not isinstance(pl_module, ClassifierModule):
            return
        measured, scope = dict(trainer.callback_metrics), self._scope
        record = metrics_record(pl_module, measured, self._tested, self.run, scope, str(trainer.precision))
        path = self.run / scope.metrics_file
        write_json(path, record)
        if scope.foreign is not None:
            rank_zero_info(f"metrics: {path}, and not {METRICS_FILE}: {scope.foreign}")


def _tested_checkpoint(trainer: Trainer, module: ClassifierModule, run: Path) -> Path | None:
    """The run's checkpoint whose net is tested; None where it is another net."""
    if trainer.ckpt_path:
        path = Path(trainer.ckpt_path)
        return path if run_folder(path) == run.absolute() else None
    last = run / CHECKPOINT_DIR / LAST
    if not last.is_file():
        return None
    weights = read_checkpoint(last)["state_dict"]
    mine = module.state_dict()
    same = weights.keys() == mine.keys() and all(bool((weights[key] == mine[key].cpu()).all()) for key in weights)
    return last if same else None
