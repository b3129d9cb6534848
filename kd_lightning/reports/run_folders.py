"""What runs left in their folders. Reads only files, without torch."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.runs.files import (
    CONFIG_FILE,
    DETAILS_FILE,
    METRICS_FILE,
    OTHER_METRICS_FILE,
    read_json,
    read_yaml,
    shown,
)

COST_NAMES = ("parameters", "file_bytes", "flops", "single_ms", "batch_ms", "batch_size")  # of a net, see metrics.costs
FAULT_LENGTH = 200  # characters of a text about a damaged file, at most

Faults = Callable[[dict[str, Any]], Iterator[str]]


class Run(NamedTuple):
    """What a run left in its folder.

    Attributes:
        folder: Where it is.
        config: The resolved configuration.
        metrics: Content of metrics.json, empty where the run was not tested.
        details: Content of details.json, empty where the run was not tested.
        problem: What is wrong with it, None where it is whole and tested.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    details: dict[str, Any]
    problem: str | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return shown(Path(self.folder.name))

    @property
    def seed(self) -> int | None:
        """What its random numbers began with; None where unknown."""
        seed = self.config.get("seed_everything")
        return seed if _is_count(seed) else None

    @property
    def class_names(self) -> list[str] | None:
        """Name of each class; None where the data has none."""
        names: list[str] | None = self.details.get("class_names")
        return names

    @property
    def stopped_early(self) -> str | None:
        """How far a run came that was stopped before its end; None for a whole one, or where it was to stop itself."""
        done, planned = self.metrics.get("steps_done"), self.metrics.get("steps_planned")
        if done is None or planned is None or done >= planned or stops_itself(self.config):
            return None
        return f"stopped after {done:,} of {planned:,.0f} steps"


def stops_itself(config: Mapping[str, Any]) -> bool:
    """Whether a configuration may end a run before its last step: EarlyStopping, Timer or a time limit."""
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        return False
    callbacks = trainer.get("callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    names = {str(each.get("class_path")).rpartition(".")[2] for each in listed if isinstance(each, dict)}
    return trainer.get("max_time") is not None or bool(names & {"EarlyStopping", "Timer"})


def find_runs(paths: Sequence[str]) -> list[Path]:
    """The run folders among the paths and inside them, each once, in order.

    Raises:
        FileNotFoundError: If a path does not exist or holds no run.
    """
    folders: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"no run folder {path}" + (", but a file" if path.is_file() else ""))
        found = [path] if (path / CONFIG_FILE).is_file() else sorted(f.parent for f in path.rglob(CONFIG_FILE))
        if not found:
            raise FileNotFoundError(f"{path} holds no run: no config.yaml in it or below")
        folders |= dict.fromkeys(found)
    return list(folders)


def read_run(folder: Path) -> Run:
    """Read what a run left in its folder; what can't be read is its problem."""
    problems: list[str] = []

    def read(name: str, parse: Callable[[Path], dict[str, Any]], faults: Faults) -> dict[str, Any]:
        file = folder / name
        if not file.is_file():
            return {}
        try:
            content = parse(file)
        except (ValueError, OSError) as error:
            problems.append(str(error).replace(str(file), name))
            return {}
        found = next(faults(content), None)
        if found is not None:
            problems.append(f"{name} is damaged: {found}")
            return {}
        return content

    config = read(CONFIG_FILE, read_yaml, lambda _: iter(()))
    metrics = read(METRICS_FILE, read_json, _faults_of_metrics)
    details = read(DETAILS_FILE, read_json, _faults_of_details)
    if not metrics and not problems:
        elsewhere = (folder / OTHER_METRICS_FILE).is_file()
        tested = "not tested on all of its own data" if elsewhere else "not tested"
        problems.append(tested if any(folder.glob("checkpoints/*.ckpt")) else "no checkpoint yet")
    return Run(folder, config, metrics, details, "; ".join(problems) or None)


def _faults_of_metrics(content: dict[str, Any]) -> Iterator[str]:
    """What a table can't do with metrics.json, one text per fault."""
    test = content.get("test")
    if not isinstance(test, dict) or not {"errors", "examples"} <= test.keys():
        yield "it has no errors and examples"
        return
    yield from _unlike(test, ("errors", "examples"), "a count", _is_count, required=True)
    yield from _unlike(test, ("teacher_errors",), "a count", _is_count)
    yield from _unlike(test, ("teacher_agreement",), "a number", _is_number)
    yield from _unlike(content, ("parameters", "teacher_parameters", "teachers", "steps_done"), "a count", _is_count)
    yield from _unlike(content, ("train_seconds", "steps_planned"), "a number", _is_number)
    if 0 in (test["examples"], content.get("parameters")):
        yield "its examples and parameters must be above 0"
    if content.get("teachers") and None in (test.get("teacher_errors"), content.get("teacher_parameters")):
        yield "it has teachers without their errors and parameters"
    interval = content.get("error_rate_interval")
    if interval is not None and not (_is_list_of(interval, _is_number) and len(interval) == 2):
        yield f"error_rate_interval must be two numbers, got {interval!r}"[:FAULT_LENGTH]
    costs = content.get("costs") or {}
    if not isinstance(costs, dict) or not all(isinstance(each, dict) for each in costs.values()):
        yield "costs must be a mapping of mappings"
        return
    for each in costs.values():
        yield from _unlike(each, COST_NAMES, "a number", _is_number, required=True)


def _faults_of_details(content: dict[str, Any]) -> Iterator[str]:
    """What no picture can be made of in details.json, one text per fault."""
    tables = content.get("tables", {})
    if not isinstance(tables, dict):
        yield "tables must be a mapping"
        return
    for name in ("confusion", "teacher_confusion", "sequence_confusion"):
        counts = tables.get(name, [[0]])
        square = isinstance(counts, list) and all(_is_list_of(line, _is_count) for line in counts)
        if not square or not counts or any(len(line) != len(counts) for line in counts):
            yield f"{name} must be a square of counts"
    names = content.get("class_names")
    if names is not None and not _is_list_of(names, lambda each: isinstance(each, str)):
        yield "class_names must be a list of texts"
    wrong = tables.get("wrong_rows")
    if wrong is not None and not _is_list_of(wrong, _is_count):
        yield "wrong_rows must be a list of counts"
    bins = tables.get("reliability", [])
    if not _is_list_of(bins, lambda each: isinstance(each, dict)):
        yield "reliability must be a list of bins"
        return
    for each in bins:
        yield from _unlike(each, ("count", "confidence", "accuracy"), "a number", _is_number, required=True)


def _unlike(
    values: Mapping[str, Any], names: Sequence[str], kind: str, fits: Callable[[Any], bool], *, required: bool = False
) -> Iterator[str]:
    """Texts about the values that are not of their kind; where they may be absent, None is as good as absent."""
    for name in names:
        value = values.get(name)
        if not fits(value) and (required or value is not None):
            yield f"{name} must be {kind}, got {value!r}"[:FAULT_LENGTH]


def _is_count(value: Any) -> bool:  # Any: a file may hold anything
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:  # Any: a file may hold anything
    return _is_count(value) or (isinstance(value, float) and math.isfinite(value))


def _is_list_of(value: Any, fits: Callable[[Any], bool]) -> bool:  # Any: a file may hold anything
    return isinstance(value, list) and all(map(fits, value))


def common_parent(folders: Sequence[Path]) -> Path:
    """The closest folder that holds all run folders."""
    parents = [folder.absolute().parent for folder in folders]
    return next(p for p in (parents[0], *parents[0].parents) if all(q.is_relative_to(p) for q in parents))


def distinct_names(runs: Sequence[Run]) -> dict[Path, str]:
    """What to call each run: its folder's name, or more of its path where that is not enough."""
    parent = common_parent([run.folder for run in runs])
    counted = Counter(run.name for run in runs)
    return {
        run.folder: run.name if counted[run.name] == 1 else shown(run.folder.absolute().relative_to(parent))
        for run in runs
    }
