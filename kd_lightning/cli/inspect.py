"""The subcommand `inspect`: what teachers know, before a student is trained."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from lightning.pytorch import LightningDataModule
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kd_lightning.cli.arguments import PROG
from kd_lightning.data.batches import Batch, batch_on_device
from kd_lightning.data.transfer_data import unit_of
from kd_lightning.reports import plots
from kd_lightning.reports.console import table_console
from kd_lightning.reports.run_folders import common_parent
from kd_lightning.runs.checkpoints import run_folder
from kd_lightning.runs.files import CONFIG_FILE, from_here, shown, write_atomically
from kd_lightning.runs.texts import say
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.knowledge import Knowledge, knowledge
from kd_lightning.teachers.loading import load_teachers, teacher_checkpoints
from kd_lightning.teachers.logits_file import logits_files
from kd_lightning.teachers.source import LiveTeachers, Softener

_TRAINING_BATCHES = 20  # used where there is no validation split
_MEANING = "dark knowledge: the soft loss of a student who knows only the label and how sure the teachers are"


def run_inspect(arguments: Sequence[str]) -> None:
    """Print what teachers know: errors, calibration, agreement, and their soft targets at rising temperatures.

    Args:
        arguments: Teachers and options.

    Raises:
        FileNotFoundError: If a teacher, or its run's configuration, is missing.
        ValueError: If a teacher or the data can't be used.
    """
    parser = inspect_parser()
    given = parser.parse_args(list(arguments))
    config = Path(given.config) if given.config else _config_of(given.teachers)
    data = _data(config, given.data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ensemble = FrozenEnsemble(load_teachers(given.teachers)).to(device)
    files = list(logits_files(ensemble).values())
    for file in files:
        file.bind(data)
    split, batches = _batches(data, validation=all(file.has_val for file in files))
    teachers = LiveTeachers(ensemble, Softener())
    logits, labels = _answers(teachers, (batch_on_device(batch, data, device) for batch in batches))
    measured = knowledge(logits, labels)
    console = table_console()
    folder, names = _names([teacher.source for teacher in ensemble.teachers])
    place = "" if folder == "." else f" in {folder}"
    title = f"teachers{place} on {measured.examples:,} {split} {unit_of(data)}"
    _print_teachers(console, measured, names, title)
    _print_temperatures(console, measured)
    say(f"{_MEANING}\n{_sentence(measured)}")
    if given.picture:
        picture = Path(given.picture)
        figure = plots.knowledge(
            [each.temperature for each in measured.temperatures],
            [each.label for each in measured.temperatures],
            [each.entropy for each in measured.temperatures],
            [each.dark_knowledge for each in measured.temperatures],
        )
        write_atomically(picture, lambda part: part.write_bytes(plots.as_png(figure)))
        say(f"written: {picture}")


def _names(sources: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that holds all teachers, and what to call each: its run and checkpoint, or its file."""
    files = [Path(source).absolute() for source in sources]
    places = [run_folder(file) or file for file in files]
    folder = common_parent(places)
    names = []
    for place, file in zip(places, files, strict=True):
        checkpoint = "" if place == file else f", {file.name}"
        names.append(shown(Path(f"{place.relative_to(folder)}{checkpoint}")))
    return shown(from_here(folder)), names


def inspect_parser() -> jsonargparse.ArgumentParser:
    """The options of `inspect`."""
    parser = jsonargparse.ArgumentParser(
        prog=f"{PROG} inspect",
        description=(
            "What teachers know, before a student is trained: errors, calibration, agreement with each other, and at "
            "which temperatures their soft targets say more than the label. Uses the validation examples."
        ),
        exit_on_error=False,
    )
    parser.add_argument("teachers", nargs="+", help="Runs, checkpoints, globs of either, or files of logits.")
    parser.add_argument(
        "--config", type=str | None, help="A configuration whose data is used; by default the first teacher's."
    )
    parser.add_argument("--data_dir", type=str | None, help="Folder of the data, in place of the configuration's.")
    parser.add_argument("--picture", type=str | None, help="A PNG file to draw the soft targets' curves into.")
    return parser


def _config_of(teachers: Sequence[str]) -> Path:
    """The configuration of the first teacher's run."""
    checkpoint = teacher_checkpoints(teachers[0])[0]
    run = run_folder(checkpoint)
    if run is None or not (run / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{checkpoint} lies in no run, so its data is unknown; name a configuration: --config")
    return run / CONFIG_FILE


def _data(config: Path, data_dir: str | None) -> LightningDataModule:
    """The data module of a configuration, set up."""
    if not config.is_file():
        raise FileNotFoundError(f"no configuration {config}")
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    described = content.get("data") if isinstance(content, dict) else None
    if described is None:
        raise ValueError(f"{config} has no data; expected a configuration with data: class_path ...")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    flags = [] if data_dir is None else [f"--data.data_dir={data_dir}"]
    parsed: Any = parser.instantiate_classes(parser.parse_args([f"--data={json.dumps(described)}", *flags]))
    data: LightningDataModule = parsed.data
    data.prepare_data()
    data.setup("fit")
    return data


def _batches(data: LightningDataModule, *, validation: bool) -> tuple[str, Iterator[Any]]:
    """Name of the split that is used, and its batches: validation, if it is wanted and there is one."""
    loaders = data.val_dataloader() if validation else []
    if isinstance(loaders, list | tuple) and not loaders:
        return "training", islice(iter(data.train_dataloader()), _TRAINING_BATCHES)
    return "validation", chain(*loaders) if isinstance(loaders, list | tuple) else iter(loaders)


@torch.no_grad()
def _answers(teachers: LiveTeachers, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """The teachers' logits on labelled examples, (teachers, examples, classes), and the labels."""
    logits, labels = [], []
    for batch in batches:
        labelled = batch.labels >= 0
        answered = teachers.logits(batch)
        if answered is None:
            raise ValueError("a file of logits lacks rows of the validation split")
        logits.append(answered[:, labelled].cpu())
        labels.append(batch.labels[labelled].cpu())
    if not sum(map(len, labels)):
        raise ValueError("there is no labelled example to look at; check the data's val_size")
    return torch.cat(logits, dim=1), torch.cat(labels)


def _print_teachers(console: Console, measured: Knowledge, sources: Sequence[str], title: str) -> None:
    several = len(sources) > 1
    table = Table(title=title)
    columns = ["teacher", "errors", "NLL", "mean confidence", "calibration error"]
    for column in columns:
        table.add_column(column, justify="left" if column == "teacher" else "right", overflow="fold")
    if several:
        table.add_column("agrees with the others", justify="right")
    lines = list(zip(sources, measured.teachers, strict=True)) + (
        [("all together", measured.ensemble)] if several else []
    )
    for number, (name, answers) in enumerate(lines):
        shares = measured.agreement[number] if several and number < len(sources) else []
        others = [share for other, share in enumerate(shares) if other != number]
        table.add_row(
            name,
            f"{answers.errors:,}",
            f"{answers.nll:.4f}",
            f"{answers.confidence:.4f}",
            f"{answers.calibration_error:.4f}",
            *([f"{100 * sum(others) / len(others):.2f} %" if others else "–"] if several else []),
        )
    console.print(table)


def _print_temperatures(console: Console, measured: Knowledge) -> None:
    table = Table(title="soft targets")
    for column in ["T", "probability of the label", "entropy, nats", "dark knowledge, nats"]:
        table.add_column(column, justify="right")
    for each in measured.temperatures:
        table.add_row(f"{each.temperature:g}", f"{each.label:.4f}", f"{each.entropy:.4f}", f"{each.dark_knowledge:.4f}")
    console.print(table)


def _sentence(measured: Knowledge) -> str:
    found = measured.useful_range
    if found is None:
        return "The soft targets say no more than the label at any temperature."
    return (
        f"From T = {found[0]:g} the soft targets say more than the label; from T = {found[1]:g} on a higher "
        "temperature adds little."
    )
