"""LightningCLI with run folders, crash-safe checkpoints and guards."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from jsonargparse.typing import register_type
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from kd_lightning import __version__, data, modules, nets, teachers  # noqa: F401 (short class names in YAML: imported classes)
from kd_lightning.cli.arguments import (
    ARGUMENTS,
    DESCRIPTION,
    OPTIONS_POINTER,
    OTHER_COMMANDS_HELP,
    PROG,
    SUBCOMMANDS,
)
from kd_lightning.cli.lossy_output import output_may_be_lost
from kd_lightning.cli.outcome import lines_of_fit, print_table, table_of_test, table_of_validation
from kd_lightning.cli.trainer_options import (
    callbacks_for_fit,
    refuse_fit_without_result,
    refuse_numbers_out_of_range,
)
from kd_lightning.data.sequences import sequences_of
from kd_lightning.data.transfer_data import transfer_data, unit_of
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import FreePassProfiler, OpenCommandLine
from kd_lightning.nets.construction import constructor_errors
from kd_lightning.runs.checkpoints import BEST, CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import EVENT_FILES, METRICS_FILE, PREDICTIONS_FILE, write_atomically, write_json
from kd_lightning.runs.resume import (
    await_next_second,
    check_strategy,
    named_checkpoint,
    newest_whole_checkpoint,
    refuse_other_config,
    refuse_other_module,
    run_files,
)
from kd_lightning.teachers.check import refuse_own_teacher
from kd_lightning.teachers.ensemble import HasTeachers
from kd_lightning.training.curves_logger import CurvesLogger
from kd_lightning.training.dashboard import Dashboard, add_test_scalars
from kd_lightning.training.last_checkpoint import (
    AtomicCheckpointIO,
    EndOfSteps,
    LastCheckpoint,
    TakeSignals,
    best_checkpoint,
)
from kd_lightning.training.progress import RunProgress
from kd_lightning.training.record import EvaluationRecord, metrics_record, prediction_rows, scope_of_test, write_csv
from kd_lightning.training.resuming import Ending, ResumedCallbacks, restoring_errors
from kd_lightning.training.run_record import RunRecord
from kd_lightning.training.sequence_predictions import sequence_rows
from kd_lightning.training.signals import StopSignals, only_fit_in
from kd_lightning.training.trial import Banner, DryRun, Prepare, TrialDone

# The default of an argument of StochasticWeightAveraging, which must go into config.yaml.
register_type(torch.device, fail_already_registered=False)


def _path_text(value: object) -> str:
    """The text of a path in config.yaml.

    Raises:
        ValueError: If it is something else. The parser's own function takes the text of a whole list of teachers, too,
            which can't be read again where it holds nets.
    """
    if not isinstance(value, str | Path):
        raise ValueError(f"expected a path, got {type(value).__name__}")
    return str(value)


register_type(Path, _path_text, type_check=isinstance)


class DistillCLI(OpenCommandLine):
    """LightningCLI with run folders, crash-safe checkpoints and guards against silent surprises.

    Args:
        args: The arguments after the program's name.
        held: Takes what a fit holds while it runs: its folder.
        signals: What asks the run to stop; None leaves the signals to whoever has them.
        typed: The command line as it was typed, for TensorBoard; by default made of the arguments.
    """

    subcommand_help = SUBCOMMANDS
    other_commands_help = OTHER_COMMANDS_HELP
    subcommand_hint = OPTIONS_POINTER

    def __init__(
        self,
        args: list[str],
        held: ExitStack | None = None,
        signals: StopSignals | None = None,
        typed: Sequence[str] | None = None,
    ) -> None:
        self._held = held or ExitStack()
        self._signals = signals
        self._run_by_main = held is not None
        self._typed = typed or [*PROG.split(), *args]
        self._resumed: dict[str, Any] | None = None
        self._replaced: list[Path] = []
        # Errors come to main, which says them in one line; an abbreviation would be a misspelling that trains.
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            ClassifierModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            trainer_defaults={"enable_model_summary": False},  # one line says it, see RunRecord
            seed_everything_default=0,
            parser_kwargs={
                "prog": PROG,
                "description": DESCRIPTION,
                "version": __version__,
                **strict,
                **{name: {**strict, "description": text} for name, text in SUBCOMMANDS.items()},
            },
            args=args,
        )

    def __getstate__(self) -> dict[str, Any]:  # Any: a configuration holds all kinds of values
        """Keep the configuration only, in a copy or a pickle.

        An optimizer or a scheduler given by class_path refers to the command line that built it, so the module that
        holds them does, too. Callbacks copy the module, and ddp_spawn pickles it.
        """
        return {"config_dump": self.config_dump}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments that every subcommand has in addition to Lightning's own."""
        for name, (default, text) in ARGUMENTS.items():
            parser.add_argument(f"--{name}", type=type(default), default=default, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, also from Python whatever the arguments of the process."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # main hands over a list

    def before_instantiate_classes(self) -> None:
        """Check the run's folder and the checkpoint before anything is built or written."""
        if self._run_by_main and self.subcommand != "validate":  # which leaves no file
            self._held.enter_context(output_may_be_lost())
        self.dump_config()
        self.config[self.subcommand]["weights_only"] = True  # a checkpoint must not run code
        self._run_dir = Path(self._value("run_dir"))
        check_strategy(self._value("trainer.strategy"))
        refuse_numbers_out_of_range(self._value("trainer"))
        if self.subcommand == "fit":
            self._prepare_fit()
        else:
            self._prepare_evaluation()

    def instantiate_classes(self) -> None:
        """Build what is configured; an error of a constructor comes out as it was raised."""
        with constructor_errors(self.parser, self.config):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # Any: Lightning's own signature
        """Build the trainer with the run's folder, logger and checkpoints."""
        given = self.config_init[self.subcommand]["trainer"]
        dry = self.subcommand == "fit" and self._only_tries
        fitting = self.subcommand == "fit" and not given.get("fast_dev_run") and not dry
        kwargs.setdefault("default_root_dir", given.get("default_root_dir") or self._run_dir)
        plugins = given.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        # Lightning's own requeueing saves within the signal: see training/signals.py, which does it between two steps.
        slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() and not plugins else []
        kwargs["plugins"] = [*plugins, AtomicCheckpointIO(), *slurm]
        if given.get("profiler") is None:
            kwargs["profiler"] = FreePassProfiler()
        if dry:
            kwargs["enable_checkpointing"] = False
        if not fitting:
            kwargs["logger"] = False
        elif given.get("logger") in (None, True):
            older_curves = any(self._run_dir.glob(EVENT_FILES))
            await_next_second(self._run_dir)
            kwargs["logger"] = CurvesLogger(
                self._run_dir,
                name="",
                version="",
                default_hp_metric=False,
                # Steps that a killed run logged after its last checkpoint, or before any, are run again: drop them.
                purge_step=self._resumed["global_step"] if self._resumed else (0 if older_curves else None),
                flush_secs=10,
            )
        callbacks = given.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if self.subcommand == "fit":
            callbacks = callbacks_for_fit(callbacks, resumes=self._resumed is not None, tries=not fitting)
        kwargs["callbacks"] = callbacks
        progress = [] if given.get("enable_progress_bar") is False else [RunProgress()]
        records: list[Callback] = [] if self._signals is None else [TakeSignals(self._signals)]
        if self.subcommand == "test":
            tested = Path(self._value("ckpt_path"))
            self._scope = scope_of_test(self.config_dump, self._tested_config, self.datamodule, tested, self._run_dir)
            records.append(EvaluationRecord(self._run_dir / self._scope.details_file))
        if self.subcommand == "fit":
            records += [Banner(), self._ending(fitting)]
        if dry:
            records.append(DryRun() if self._value("dry_run") else Prepare())
        last = None
        if fitting:
            last = LastCheckpoint(
                self._run_dir,
                interval=self._value("save_every"),
                signals=self._signals,
            )
            records += [
                RunRecord(self._run_dir, self._saved_config(), self._replaced),
                ResumedCallbacks(self._saved_config()),
                best_checkpoint(self._run_dir),
                last,
                Dashboard(self._saved_config(), self._typed, self._value("pictures_every")),
            ]
        self.trainer_defaults["callbacks"] = [*progress, *records]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except TypeError as error:  # of Lightning's own checks, such as of devices
            raise ValueError(f"trainer: {error} Got devices {given.get('devices')}.") from error
        if last is not None:
            trainer.callbacks.insert(0, EndOfSteps(last))  # type: ignore[attr-defined]  # set by Lightning's connector
        return trainer

    def _ending(self, fitting: bool) -> Ending:
        """What says how the fit ended; a resumed run's folder has a checkpoint even if no step is made."""
        if self._resumed is None:
            return Ending()
        has_checkpoint = any((self._run_dir / CHECKPOINT_DIR).glob("*.ckpt"))
        return Ending(self._resumed["global_step"], has_checkpoint=fitting and has_checkpoint)

    def fit(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Train, then say where the run is and what comes next."""
        if self._only_tries:
            if self._value("dry_run") and self.datamodule is not None:
                self.datamodule.prepare_data = _nothing  # which may write: download or unpack
            with suppress(TrialDone):
                self._restoring(self.trainer.fit, **kwargs)
            rank_zero_info(
                "one step done: nothing was written"
                if self._value("dry_run")
                else "prepared: the data and the soft targets that are stored are there; no step was made"
            )
            return
        self._restoring(self.trainer.fit, **kwargs)
        if not self._value("trainer.fast_dev_run"):
            records = self.model.teacher_records if isinstance(self.model, HasTeachers) else []
            accuracy = self.trainer.callback_metrics.get("val/accuracy")
            for line in lines_of_fit(records, None if accuracy is None else float(accuracy), unit_of(self.datamodule)):
                rank_zero_info(line)
            rank_zero_info(f"run: {self._run_dir}\nnext: {PROG} test --ckpt_path {quote(str(self._run_dir))}")

    def validate(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Measure loss and accuracy on the validation split."""
        self._restoring(self.trainer.validate, **{**kwargs, "verbose": False})
        if kwargs.get("verbose", True):
            rank_zero_only(print_table)(table_of_validation(self.trainer.callback_metrics))

    def test(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Test, and write metrics.json, or metrics-other.json where the result is not the run's own."""
        self._restoring(self.trainer.test, **{**kwargs, "verbose": False})
        scope = self._scope
        path = self._run_dir / scope.metrics_file
        tested = Path(kwargs["ckpt_path"])
        measured, precision = self.trainer.callback_metrics, self.trainer.precision
        record = metrics_record(self.model, measured, tested, self._run_dir, scope, precision)
        rank_zero_only(write_json)(path, record)
        if kwargs.get("verbose", True):
            rank_zero_only(print_table)(table_of_test(record))
        if scope.foreign is not None:
            rank_zero_info(f"metrics: {path}, and not {METRICS_FILE}: {scope.foreign}")
            return
        if any(self._run_dir.glob(EVENT_FILES)):
            rank_zero_only(add_test_scalars)(self._run_dir, record["test"], record["steps"])
        rank_zero_info(f"metrics: {path}\nnext: {PROG} report {quote(str(self._run_dir.parent))}")

    def predict(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Predict, and write predictions.csv into the run's folder."""
        if self.trainer.world_size > 1:
            raise ValueError("predict runs on one device; set --trainer.devices 1")
        kwargs["return_predictions"] = True
        batches = self._restoring(self.trainer.predict, **kwargs)
        known, sequences = transfer_data(self.datamodule), sequences_of(self.datamodule, "predict")
        if sequences is None:
            rows = list(prediction_rows(batches or [], None if known is None else known.predict_names))
        else:
            rows = list(sequence_rows(batches or [], sequences))
        path = self._run_dir / PREDICTIONS_FILE
        write_atomically(path, partial(write_csv, rows))
        rank_zero_info(f"predictions: {path} ({len(rows)} rows)")

    @staticmethod
    def _restoring(run: Callable[..., Any], **kwargs: Any) -> Any:  # Any: the trainer's methods
        """Call one of the trainer's methods; what a damaged checkpoint makes it raise is an error of the file."""
        with restoring_errors(kwargs["ckpt_path"]):
            return run(**kwargs)

    def _prepare_fit(self) -> None:
        given = self._value("ckpt_path")
        overwrite = self._value("overwrite")
        if given and overwrite:
            raise ValueError("--overwrite deletes the run that --ckpt_path resumes; give one of them")
        if given:
            path = self._resume_path(given)
            self.config[self.subcommand]["ckpt_path"] = None if path is None else str(path)
            if path is not None:
                self._resumed = read_checkpoint(path)
                refuse_other_module(self._resumed, path, self._value("model.class_path"))
                refuse_other_config(self._resumed, path, self._saved_config())
                rank_zero_info(f"resuming {path} after step {self._resumed['global_step']}")
        writes = not self._value("trainer.fast_dev_run") and not self._only_tries
        refuse_fit_without_result(self._value("trainer"), writes=writes)
        if getattr(rank_zero_only, "rank", 0) == 0 and writes:
            self._held.enter_context(only_fit_in(self._run_dir))
            leftovers = list(run_files(self._run_dir))
            if overwrite:
                refuse_own_teacher(self._run_dir, self._value("model.init_args.teachers"))
                self._replaced = leftovers
            elif leftovers and not (given and self._owns(given)):
                raise FileExistsError(
                    f"{self._run_dir} already holds a run; resume it with --ckpt_path last, "
                    "start over with --overwrite true, or choose another --run_dir"
                )

    def _owns(self, given: str) -> bool:
        """Whether the checkpoint to resume from is one of this run's own."""
        path = Path(given).absolute()
        return given in {"last", "best"} or self._run_dir.absolute() in (path, *path.parents)

    def _resume_path(self, given: str) -> Path | None:
        """The checkpoint to resume from; None where `last` finds nothing, so that a job script can always ask."""
        if given == "last":
            return newest_whole_checkpoint(self._run_dir, rank_zero_info)
        return named_checkpoint(self._run_dir, given, LAST)

    def _prepare_evaluation(self) -> None:
        given = self._value("ckpt_path")
        if not given:
            raise ValueError(
                f"{self.subcommand} needs a trained net: --ckpt_path with a run's folder, a file, best or last"
            )
        path = named_checkpoint(self._run_dir, given, BEST)
        checkpoint = read_checkpoint(path)
        refuse_other_module(checkpoint, path, self._value("model.class_path"))
        self._tested_config = checkpoint.get(RECORD_KEY, {}).get("config")
        self._run_dir = run_folder(path) or self._run_dir
        self.config[self.subcommand]["ckpt_path"] = str(path)

    def _saved_config(self) -> dict[str, Any]:
        """The resolved configuration without what belongs to a single call."""
        per_call = {
            *self.method_arguments(),
            "overwrite",
            "dry_run",
            "prepare",
            "config",
        }
        return {key: value for key, value in self.config_dump.items() if key not in per_call}

    @property
    def _only_tries(self) -> bool:
        """Whether this fit ends after one step, or before it, and leaves no run."""
        return bool(self._value("dry_run") or self._value("prepare"))

    def _value(self, key: str) -> Any:  # Any: a configuration holds all kinds of values
        return self.config.get(f"{self.subcommand}.{key}")


def _nothing() -> None:
    """Do nothing."""
