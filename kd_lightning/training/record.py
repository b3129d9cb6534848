"""What `test` writes into a run's folder: metrics.json and details.json."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer

from kd_lightning import __version__
from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs
from kd_lightning.data.seeded import SeededViews
from kd_lightning.data.transfer_data import class_names_of, data_of, unit_of
from kd_lightning.metrics.classification import error_interval
from kd_lightning.metrics.costs import measure_costs
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.nets.description import parameter_count
from kd_lightning.runs.checkpoints import LAST, RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import (
    CONFIG_FILE,
    DETAILS_FILE,
    METRICS_FILE,
    OTHER_DETAILS_FILE,
    OTHER_METRICS_FILE,
    read_json,
    write_json,
)
from kd_lightning.teachers.ensemble import teachers_of

_COUNTS = {"errors", "examples", "teacher_errors"}
# Arguments of a data module about how examples are served, not about which.
_SERVING = {"batch_size", "eval_batch_size", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor"}


@runtime_checkable
class NamesTestData(Protocol):
    """A data module that lists the arguments that change its test set. For any other, nearly all arguments count."""

    test_data_arguments: Sequence[str]


class EvaluationScope(NamedTuple):
    """Which examples a test looks at, and whether its result is the run's own.

    Attributes:
        unit: What the examples are, in the plural.
        data: The data module's class, and its arguments that decide on the test set.
        limits: Options of the trainer that leave test examples out.
        foreign: Why the result is not the run's own; None where it is.
    """

    unit: str
    data: dict[str, Any]
    limits: dict[str, Any]
    foreign: str | None

    @property
    def metrics_file(self) -> str:
        """Name of the file for the figures."""
        return METRICS_FILE if self.foreign is None else OTHER_METRICS_FILE

    @property
    def details_file(self) -> str:
        """Name of the file for the tables."""
        return DETAILS_FILE if self.foreign is None else OTHER_DETAILS_FILE


def scope_of_test(
    config: Mapping[str, Any], run_config: Mapping[str, Any] | None, datamodule: object, checkpoint: Path, run: Path
) -> EvaluationScope:
    """Compare what a test looks at with what its run should be tested on: all test examples of its own data.

    Args:
        config: Of the test, resolved.
        run_config: Of the run that wrote the checkpoint; None where it was not written from the command line.
        datamodule: The test's data.
        checkpoint: The tested file.
        run: The folder that the result goes to.
    """
    data = _test_data(config.get("data"), datamodule)
    limits = _test_limits(config["trainer"])
    expected = data if run_config is None else _test_data(run_config.get("data"), datamodule)
    foreign = None
    if run_folder(checkpoint) is None and (run / CONFIG_FILE).is_file():
        foreign = f"{checkpoint} is not a checkpoint of the run {run}"
    elif data != expected:
        names = sorted(name for name in data.keys() | expected.keys() if data.get(name) != expected.get(name))
        differences = (f"{name} {data.get(name)!r} in place of the run's {expected.get(name)!r}" for name in names)
        foreign = f"tested on other data, {', '.join(differences)}"
    elif limits:
        given = ", ".join(f"{name} {value}" for name, value in limits.items())
        foreign = f"tested on a part of the data, {given}"
    return EvaluationScope(unit_of(datamodule), data, limits, foreign)


def _test_data(described: Any, datamodule: object) -> dict[str, Any]:  # Any: a configuration's value
    """Class and arguments of a configured data module that decide on the test set.

    Args:
        described: Its configuration; None where there is none.
        datamodule: The test's data, which may know these arguments.
    """
    if not isinstance(described, Mapping):
        return {}
    given = dict(described.get("init_args") or {})
    if isinstance(datamodule, SeededViews):
        return _test_data(given.get("data"), datamodule.data)
    arguments = datamodule.test_data_arguments if isinstance(datamodule, NamesTestData) else None
    kept = given.keys() - _SERVING if arguments is None else arguments
    name_of_class = str(described.get("class_path")).rpartition(".")[2]  # one class has several paths
    return {"class": name_of_class, **{name: given.get(name) for name in sorted(kept)}}


def _test_limits(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the trainer that leave test examples out, with their values."""
    limits = {}
    if trainer.get("fast_dev_run"):
        limits["fast_dev_run"] = trainer["fast_dev_run"]
    share = trainer.get("limit_test_batches")
    if share is not None and not (isinstance(share, float) and share == 1.0):  # the integer 1 is a single batch
        limits["limit_test_batches"] = share
    return limits


class EvaluationRecord(LeanCallback):
    """Writes details: the test's tables, the names of the classes, and what net and teachers cost to use.

    It runs in the process that tests, because a forked process returns only the logged numbers.

    Args:
        file: Where to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._inputs: Inputs | None = None

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch of inputs."""
        if batch_idx == 0:
            self._inputs = Batch.of(batch).inputs

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the ranks, measure and write."""
        module = cast(ClassifierModule, pl_module)
        tables = module.test_metrics.tables.compute()
        if trainer.is_global_zero and self._inputs is not None:
            teachers = teachers_of(module)
            nets = {"net": module} if teachers is None else {"net": module, "teachers": teachers}
            costs = {who: found._asdict() for who, found in measure_costs(nets, self._inputs).items()}
            names = class_names_of(data_of(trainer))
            write_json(self.file, {"tables": tables, "class_names": names, "costs": costs})


def metrics_record(
    module: ClassifierModule,
    measured: dict[str, Any],
    checkpoint_path: Path,
    run: Path,
    scope: EvaluationScope,
    precision: str,
) -> dict[str, Any]:
    """Content of metrics.json: the test figures, and what they were measured on and with.

    Args:
        module: The tested module.
        measured: What the trainer logged, by key; those below test/ are taken.
        checkpoint_path: The tested file.
        run: The run's folder, where the test has left its details.
        scope: What the test looked at.
        precision: The trainer's, such as 32-true; the module may have been tested in another process.

    Raises:
        ValueError: If it looked at nothing.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    origin = checkpoint.get(RECORD_KEY, {})
    metrics: dict[str, Any] = {
        key.removeprefix("test/"): float(value) for key, value in measured.items() if key.startswith("test/")
    }
    if not metrics.get("examples"):
        raise ValueError(
            "the test saw no example with a label, so there is no result; "
            "check --trainer.limit_test_batches and the data's test_dataloader"
        )
    details_file = run / scope.details_file
    details = read_json(details_file) if details_file.is_file() else {}
    sequences = details.get("tables", {}).get("sequences")
    for count in (_COUNTS | _sequence_counts(sequences)) & metrics.keys():
        metrics[count] = int(metrics[count])
    record: dict[str, Any] = {
        "test": dict(sorted(metrics.items())),
        "error_rate_interval": error_interval(metrics["errors"], metrics["examples"]),
        "unit": scope.unit,
        "data": scope.data,
        "limits": scope.limits,
        "costs": details.get("costs"),
        "checkpoint": checkpoint_path.name,
        "epochs": origin.get("epochs"),
        "validation": origin.get("validation"),
        "steps": checkpoint["global_step"],
        **_end_of_run(checkpoint_path, checkpoint),
        "seed": (origin.get("config") or {}).get("seed_everything"),
        "parameters": parameter_count(module.net),
        "train_seconds": origin.get("train_seconds"),
        "hardware": origin.get("hardware"),
    }
    if sequences is not None:
        record |= _over_sequences(sequences)
    teachers = teachers_of(module)
    if teachers is not None:
        record |= {"teacher_parameters": parameter_count(teachers), "teachers": len(teachers)}
    return record | {
        "device": str(module.device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "versions": {
            "kd_lightning": __version__,
            "lightning": lightning.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "tested_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _sequence_counts(found: Mapping[str, Any] | None) -> set[str]:
    """Names of the counts of whole sequences, as they are logged."""
    if found is None:
        return set()
    return {found["unit"], f"{found['kind']}_errors", f"teacher_{found['kind']}_errors"}


def _over_sequences(found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of metrics.json about whole sequences; their interval replaces that of the rows."""
    counts = {name: found[name] for name in ("unit", "kind", "count", "errors", "teacher_errors") if name in found}
    rate = {"interval": error_interval(found["errors"], found["count"])} if found["count"] else {}
    return {"error_rate_interval": found["row_error_interval"], "sequences": counts | rate}


def _end_of_run(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Steps that a checkpoint's run made, and planned to make, from its last checkpoint; its best may be older."""
    last = path.with_name(LAST)
    if run_folder(path) is not None and last.is_file():
        try:
            checkpoint = read_checkpoint(last)
        except ValueError:  # the tested one is whole
            return {"steps_done": None, "steps_planned": None}
    planned = checkpoint.get(RECORD_KEY, {}).get("planned_steps")
    return {"steps_done": checkpoint["global_step"], "steps_planned": planned}
