"""What is said before a student's first step: teachers that, as far as the runs at hand tell, have nothing to teach."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from kd_lightning.data.transfer_data import data_of, transfer_data, unit_of
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.reports.comparison import role_of
from kd_lightning.reports.run_folders import read_run, stops_itself
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import CONFIG_FILE, from_here
from kd_lightning.runs.texts import counted
from kd_lightning.teachers.ensemble import HasTeachers

LOGGER = logging.getLogger("lightning.pytorch.kd_lightning")  # printed as Lightning's own lines are, in a study too
# A glance at a configuration's text: parsing hundreds of neighbours would take seconds.
_MAY_BE_PLAIN = re.compile(rb"^ *soft_weight: 0(\.0)?$", re.MULTILINE)


class WarnOfTeachers(LeanCallback):
    """Says before the first step that a teacher was not trained to its end, or is hardly better than a plain student.

    The plain students are the finished runs in the same folder that have the same net and the same data.

    Args:
        run: The run's folder.
        config: The resolved configuration.

    Attributes:
        plain: Validation errors of these plain students, by their runs; None before the training begins.
    """

    def __init__(self, run: Path, config: dict[str, Any]) -> None:
        self.run = run
        self.config = config
        self.plain: dict[str, int] | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it once, after the teachers' errors were counted; a resumed run has said it."""
        if self.plain is not None or not isinstance(pl_module, HasTeachers) or not trainer.is_global_zero:
            return
        data, records = transfer_data(data_of(trainer)), pl_module.teacher_records
        provenance = {} if data is None else data.provenance()
        self.plain = plain_errors(self.run, self.config, provenance, examples_of(records))
        if trainer.global_step:
            return
        for line in [*map(unfinished, records), no_better(records, self.plain, unit_of(data_of(trainer)))]:
            if line:
                LOGGER.warning(line)


def unfinished(record: Mapping[str, Any]) -> str:
    """A line about a teacher whose training was stopped, and did not stop itself; empty for others.

    Args:
        record: What teachers.json says of it.
    """
    run = run_folder(Path(record["source"]))
    content = None if run is None else _last_checkpoint(run)
    if run is None or content is None:
        return ""
    known = content.get(RECORD_KEY, {})
    planned, done = known.get("planned_steps"), content.get("global_step", 0)
    if planned is None or done >= planned or stops_itself(known.get("config", {})):
        return ""
    return (
        f"teacher {record['source']} was stopped after {done:,} of {planned:,.0f} steps; train it to the end first: "
        f"fit with --run_dir {from_here(run)} --ckpt_path last"
    )


def no_better(records: Sequence[Mapping[str, Any]], plain: Mapping[str, int], unit: str) -> str:
    """A line about a teacher that is no better than plain students, or not clearly; empty for others.

    Of several teachers nothing is said: together they may be better than each of them.

    Args:
        records: What teachers.json says of each teacher.
        plain: Errors of plain students on the same validation examples, by run.
        unit: What an example is, in the plural.
    """
    examples = examples_of(records)
    if len(records) != 1 or not plain or examples is None:
        return ""
    errors, theirs = records[0]["errors"], mean(plain.values())
    if clearly_fewer(errors, theirs):
        return ""
    what = "has nothing to teach" if errors >= theirs else "may have nothing to teach"
    chance = "" if errors >= theirs else ", which may be chance"
    return (
        f"the teacher {what}: it makes {counted(errors, 'error')} on {examples:,} validation {unit}, "
        f"{errors_of_plain(plain)}{chance}; train the teacher for longer, or take a better one"
    )


def clearly_fewer(few: float, many: float) -> bool:
    """Whether a count of errors is smaller by more than counts of this size differ by chance.

    The standard deviation of their difference is the root of their sum.
    """
    return many - few > math.sqrt(many + few)


def errors_of_plain(plain: Mapping[str, int]) -> str:
    """How many errors plain students make, for people.

    Args:
        plain: Their errors, by run; at least one.
    """
    if len(plain) == 1:
        return f"the plain student {next(iter(plain))} makes {next(iter(plain.values())):,}"
    return f"{len(plain)} plain students make {mean(plain.values()):,.4g} on average"


def plain_errors(
    run: Path, config: Mapping[str, Any], provenance: Mapping[str, Any], examples: int | None
) -> dict[str, int]:
    """Validation errors of the finished plain students in the folder of a run, by the names of their folders.

    Args:
        run: The run's folder.
        config: Its configuration: they have the same student and validate on as many batches.
        provenance: What its data says of itself: they were trained and validated on the same examples.
        examples: How many examples validate; None where the teachers were not counted on them.
    """
    if examples is None or "dataset" not in provenance or not run.parent.is_dir():
        return {}
    found = {}
    for file in sorted(run.parent.glob(f"*/{CONFIG_FILE}")):
        if file.parent == run or not _MAY_BE_PLAIN.search(file.read_bytes()):
            continue
        other = read_run(file.parent)
        if role_of(other) != "plain" or any(of(other.config) != of(config) for of in (_student, _validation_limit)):
            continue
        content = _last_checkpoint(file.parent)
        known = {} if content is None else content.get(RECORD_KEY, {})
        planned, accuracy = known.get("planned_steps"), (known.get("validation") or {}).get("val/accuracy")
        finished = content is not None and planned is not None and content.get("global_step", 0) >= planned
        if finished and accuracy is not None and known.get("data") == provenance:
            found[other.name] = round(examples * (1 - accuracy))
    return found


def examples_of(records: Sequence[Mapping[str, Any]]) -> int | None:
    """How many validation examples the teachers' errors were counted on; None where on others, or not at all."""
    counts: list[int] = [record["examples"] for record in records if record.get("split") == "validation"]
    return counts[0] if counts else None


def _last_checkpoint(run: Path) -> dict[str, Any] | None:
    """Content of a run's last checkpoint; None where there is none that can be read."""
    try:
        return read_checkpoint(run / CHECKPOINT_DIR / LAST)
    except (OSError, ValueError):
        return None


def _student(config: Mapping[str, Any]) -> object:
    return config["model"]["init_args"].get("student")


def _validation_limit(config: Mapping[str, Any]) -> str:
    """The option limit_val_batches; 1 batch is not 1.0, all of them."""
    return repr(config.get("trainer", {}).get("limit_val_batches"))
