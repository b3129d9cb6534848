"""LightningCLI with run folders, crash-safe checkpoints and guards."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from shlex import quote
from typing import Any

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
    typed_program,
)
from kd_lightning.cli.config_types import register_config_types
from kd_lightning.cli.lossy_output import output_may_be_lost
from kd_lightning.cli.outcome import lines_of_fit, print_table, table_of_test, table_of_validation
from kd_lightning.cli.run_start import claim_folder, evaluated_checkpoint, resumed_checkpoint
from kd_lightning.cli.trainer_options import callbacks_for_fit, refuse_fit_without_result, refuse_numbers_out_of_range
from kd_lightning.data.transfer_data import unit_of
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import FreePassProfiler, OpenCommandLine
from kd_lightning.nets.construction import constructor_errors
from kd_lightning.runs.checkpoints import RECORD_KEY, run_folder
from kd_lightning.runs.files import EVENT_FILES, METRICS_FILE, PREDICTIONS_FILE, from_here, write_json
from kd_lightning.runs.resume import check_strategy
from kd_lightning.runs.texts import counted
from kd_lightning.teachers.ensemble import HasTeachers
from kd_lightning.training.beforehand import WarnOfTeachers
from kd_lightning.training.dashboard import add_test_scalars
from kd_lightning.training.last_checkpoint import EndOfSteps, LastCheckpoint, TakeSignals
from kd_lightning.training.predictions import write_predictions
from kd_lightning.training.progress import RunProgress
from kd_lightning.training.record import EvaluationRecord, metrics_record, scope_of_test
from kd_lightning.training.resuming import restoring_errors
from kd_lightning.training.run_parts import as_list, callbacks_of_run, curves_logger, ending, with_run_plugins
from kd_lightning.training.signals import StopSignals
from kd_lightning.training.trial import Banner, DryRun, Prepare, TrialDone

register_config_types()


class DistillCLI(OpenCommandLine):
    """LightningCLI with run folders, crash-safe checkpoints and guards against silent surprises.

    Args:
        args: The arguments after the program's name.
        exit_stack: Releases the lock on the run's folder when the fit ends.
        signals: The signals that stop the run; None leaves signal handling to the caller.
        typed: The command line as it was typed, for TensorBoard and the next command; by default made from `args`.
    """

    subcommand_help = SUBCOMMANDS
    other_commands_help = OTHER_COMMANDS_HELP
    subcommand_hint = OPTIONS_POINTER

    def __init__(
        self,
        args: list[str],
        exit_stack: ExitStack | None = None,
        signals: StopSignals | None = None,
        typed: Sequence[str] | None = None,
    ) -> None:
        self._exit_stack = exit_stack or ExitStack()
        self._signals = signals
        self._run_by_main = exit_stack is not None
        self.asked_for = args[0] if args else ""
        self._typed = typed or [*PROG.split(), *args]
        self._program = typed_program(self._typed)
        self._resumed_step: int | None = None
        self._replaced: list[Path] = []
        # main prints an error in one line. An abbreviation is refused: it could be a misspelt option.
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            ClassifierModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            trainer_defaults={"enable_model_summary": False},  # RunRecord prints one line instead
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
        """Parse the given arguments, and never those of the process."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # main hands over a list

    def before_instantiate_classes(self) -> None:
        """Check the run's folder and the checkpoint before anything is built or written."""
        if self._run_by_main and self.subcommand != "validate":  # it writes no file
            self._exit_stack.enter_context(output_may_be_lost())
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
        """Build what is configured. An error of a constructor is raised as it is."""
        with constructor_errors(self.parser, self.config):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # Any: Lightning's own signature
        """Build the trainer with the run's folder, logger and checkpoints."""
        given = self.config_init[self.subcommand]["trainer"]
        tries = self.subcommand == "fit" and self._only_tries
        leaves_run = self.subcommand == "fit" and not tries and not given.get("fast_dev_run")
        kwargs.setdefault("default_root_dir", given.get("default_root_dir") or self._run_dir)
        kwargs["plugins"] = with_run_plugins(as_list(given.get("plugins")))
        if given.get("profiler") is None:
            kwargs["profiler"] = FreePassProfiler()
        if tries:
            kwargs["enable_checkpointing"] = False
        if not leaves_run:
            kwargs["logger"] = False
        elif given.get("logger") in (None, True):
            kwargs["logger"] = curves_logger(self._run_dir, self._resumed_step)
        callbacks = as_list(given.get("callbacks"))
        if self.subcommand == "fit":
            resumes = self._resumed_step is not None
            callbacks = callbacks_for_fit(callbacks, resumes=resumes, tries=not leaves_run)
        kwargs["callbacks"] = callbacks
        own = self._own_callbacks(leaves_run=leaves_run)
        self.trainer_defaults["callbacks"] = own
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except TypeError as error:  # of Lightning's own checks, such as of devices
            raise ValueError(f"trainer: {error} Got devices {given.get('devices')}.") from error
        for last in (callback for callback in own if isinstance(callback, LastCheckpoint)):
            trainer.callbacks.insert(0, EndOfSteps(last))  # type: ignore[attr-defined]  # set by Lightning's connector
        return trainer

    def _own_callbacks(self, *, leaves_run: bool) -> list[Callback]:
        """The callbacks that the command line adds to the configured ones."""
        wants_progress = self.config_init[self.subcommand]["trainer"].get("enable_progress_bar") is not False
        own: list[Callback] = [RunProgress()] if wants_progress else []
        if self._signals is not None:
            own.append(TakeSignals(self._signals))
        if self.subcommand == "test":
            tested = Path(self._value("ckpt_path"))
            self._scope = scope_of_test(self.config_dump, self._tested_config, self.datamodule, tested, self._run_dir)
            own.append(EvaluationRecord(self._run_dir / self._scope.details_file))
        if self.subcommand == "fit":
            own += [Banner(), ending(self._run_dir, self._resumed_step, keeps_checkpoints=leaves_run)]
            if not leaves_run:
                own.append(WarnOfTeachers(self._run_dir, self._saved_config()))
            if self._only_tries:
                own.append(DryRun() if self._value("dry_run") else Prepare())
        if leaves_run:
            own += callbacks_of_run(
                self._run_dir,
                self._saved_config(),
                typed=self._typed,
                replaced=self._replaced,
                signals=self._signals,
                save_every=self._value("save_every"),
                pictures_every=self._value("pictures_every"),
            )
        return own

    def fit(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Train, then print where the run is and which command comes next."""
        if self._only_tries:
            self._try(**kwargs)
            return
        self._restoring(self.trainer.fit, **kwargs)
        if not self._value("trainer.fast_dev_run"):
            records = self.model.teacher_records if isinstance(self.model, HasTeachers) else []
            accuracy = self.trainer.callback_metrics.get("val/accuracy")
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
            plain = next((each.plain for each in callbacks if isinstance(each, WarnOfTeachers)), None) or {}
            unit = unit_of(self.datamodule)
            for line in lines_of_fit(records, None if accuracy is None else float(accuracy), unit, plain):
                rank_zero_info(line)
            rank_zero_info(f"run: {self._run_dir}\nnext: {self._program} test --ckpt_path {quote(str(self._run_dir))}")

    def _try(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Do what --dry_run or --prepare asks for, which leaves no run."""
        dry = self._value("dry_run")
        if dry and self.datamodule is not None:
            self.datamodule.prepare_data = _nothing  # it may download or unpack
        with suppress(TrialDone):
            self._restoring(self.trainer.fit, **kwargs)
        if not dry:
            rank_zero_info("prepared: the data and the soft targets that are stored are there; no step was made")

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
            rank_zero_only(print_table)(table_of_test(record, f"{self._run_dir}, {tested.name}"))
        if scope.foreign is not None:
            rank_zero_info(f"metrics: {path}, and not {METRICS_FILE}: {scope.foreign}")
            return
        if any(self._run_dir.glob(EVENT_FILES)):
            rank_zero_only(add_test_scalars)(self._run_dir, record["test"], record["steps"])
        runs = from_here(self._run_dir.absolute().parent)
        rank_zero_info(f"metrics: {path}\nnext: {self._program} report {quote(str(runs))}")

    def predict(self, **kwargs: Any) -> None:  # Any: the trainer's own arguments
        """Predict, and write predictions.csv into the run's folder."""
        if self.trainer.world_size > 1:
            raise ValueError("predict runs on one device; set --trainer.devices 1")
        kwargs["return_predictions"] = True
        batches = self._restoring(self.trainer.predict, **kwargs)
        path = self._run_dir / PREDICTIONS_FILE
        rows = write_predictions(batches or [], self.datamodule, path)
        rank_zero_info(f"predictions: {path} ({counted(rows, 'row')})")

    @staticmethod
    def _restoring(run: Callable[..., Any], **kwargs: Any) -> Any:  # Any: the trainer's methods
        """Call one of the trainer's methods; where a damaged checkpoint makes it fail, the error names the file."""
        with restoring_errors(kwargs["ckpt_path"]):
            return run(**kwargs)

    def _prepare_fit(self) -> None:
        given, overwrite = self._value("ckpt_path"), self._value("overwrite")
        if given and overwrite:
            raise ValueError("--overwrite deletes the run that --ckpt_path resumes; give one of them")
        if given:
            module = self._value("model.class_path")
            resumed = resumed_checkpoint(self._run_dir, given, module, self._saved_config())
            self.config[self.subcommand]["ckpt_path"] = None if resumed is None else str(resumed.path)
            self._resumed_step = None if resumed is None else resumed.content["global_step"]
        writes = not self._value("trainer.fast_dev_run") and not self._only_tries
        refuse_fit_without_result(self._value("trainer"), writes=writes)
        if getattr(rank_zero_only, "rank", 0) == 0 and writes:
            teachers = self._value("model.init_args.teachers")
            self._replaced = claim_folder(
                self._run_dir, self._exit_stack, resumes=given, overwrite=overwrite, teachers=teachers
            )

    def _prepare_evaluation(self) -> None:
        given, module = self._value("ckpt_path"), self._value("model.class_path")
        if not given:
            raise ValueError(
                f"{self.subcommand} needs a trained net: --ckpt_path with a run's folder, a file, best or last"
            )
        evaluated = evaluated_checkpoint(self._run_dir, given, module)
        self._tested_config = evaluated.content.get(RECORD_KEY, {}).get("config")
        run = run_folder(evaluated.path) or self._run_dir
        named = any(each.partition("=")[0] == "--run_dir" for each in self._typed)
        if named and run.absolute() != self._run_dir.absolute():
            raise ValueError(
                f"--run_dir is where fit writes, got {self._run_dir}; {self.subcommand} writes into the folder of the "
                f"checkpoint's run, {run}: leave it out"
            )
        self._run_dir = from_here(run)
        self.config[self.subcommand]["ckpt_path"] = str(evaluated.path)

    def _saved_config(self) -> dict[str, Any]:
        """The resolved configuration without what belongs to a single call."""
        per_call = {*self.method_arguments(), "overwrite", "dry_run", "prepare", "config"}
        return {key: value for key, value in self.config_dump.items() if key not in per_call}

    @property
    def _only_tries(self) -> bool:
        """Whether this fit ends after one step, or before it, and leaves no run."""
        return bool(self._value("dry_run") or self._value("prepare"))

    def _value(self, key: str) -> Any:  # Any: a configuration holds all kinds of values
        return self.config.get(f"{self.subcommand}.{key}")


def _nothing() -> None:
    """Do nothing."""
