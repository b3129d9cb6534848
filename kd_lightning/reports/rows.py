"""Runs -> rows of the report's table."""

import json
import re
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any, NamedTuple

from kd_lightning.reports.comparison import ORDER, Group, Role, model_arguments, plain_student_of, role_of, saving
from kd_lightning.reports.run_folders import Run, common_parent, distinct_names
from kd_lightning.runs.files import shown

# What two runs of one experiment may differ in and still stand in one row.
_PER_RUN = ("seed_everything", "run_dir")
ENSEMBLE = "ensemble"


class ResultRow(NamedTuple):
    """One line of the table: runs that differ only by their seed.

    Attributes:
        name: What the runs' names have in common.
        augment: Class that changed the training images, None for plain images.
        runs: How many runs were tested.
        errors: Test errors of each, counts.
        examples: How many were tested.
        parameters: Parameters of the net, or of all nets of an ensemble.
        compression: The teachers' parameters divided by the net's; None without teachers.
        agreement: Mean share of test examples on which the net predicts the teachers' class; None without.
        seconds: Mean wall time of the training; None where unknown.
        interval: 95 % confidence interval of the error rate of a single run, None for several.
        problem: Why there is no result; None where there is one.
        unit: What the examples are, in the plural.
        saved: Errors saved against the plain student, their mean; None for who is not compared with one.
        saved_interval: Its 95 % confidence interval; None where there is none.
        stopped_early: How many of the runs were stopped before their end.
        role: What the net is in a comparison; `ensemble` for the teachers of a row together.
    """

    name: str
    augment: str | None
    runs: int
    errors: list[int]
    examples: int | None
    parameters: int | None
    compression: float | None
    agreement: float | None
    seconds: float | None
    interval: tuple[float, float] | None = None
    problem: str | None = None
    unit: str = "images"
    saved: float | None = None
    saved_interval: tuple[float, float] | None = None
    stopped_early: int = 0
    role: str = "other"


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ only by their seed and were tested on the same data, together: teachers, plain, distilled.

    Where each run has the teacher of its own seed, the teachers differ by their seed, too.
    """
    same: dict[str, list[Run]] = {}
    for run in runs:
        same.setdefault(_shared_config(run), []).append(run)
    groups: dict[str, list[Run]] = {}
    for key, members in same.items():
        one_seed = len({run.seed for run in members}) == 1
        groups.setdefault(_with_own_teacher(members[0], key) if one_seed else key, []).extend(members)
    found = [group for members in groups.values() for group in _by_test_data(members)]
    return sorted(found, key=lambda group: ORDER.index(role_of(group[0])))


def _shared_config(run: Run) -> str:
    """What the runs of a row have in common, as text."""
    shared = {key: value for key, value in run.config.items() if key not in _PER_RUN}
    return _as_text(shared) if shared else str(run.folder)


def _with_own_teacher(run: Run, key: str) -> str:
    """The key of a run, with a word in place of its seed at the end of its teachers' names."""
    teachers = _as_text(model_arguments(run.config).get("teachers"))
    return key.replace(teachers, re.sub(rf'(?<!\d){run.seed}(?=(/checkpoints/[^/"]*)?")', "SEED", teachers))


def _as_text(value: Any) -> str:  # Any: a configuration's value
    return json.dumps(value, sort_keys=True, default=str)


def _by_test_data(members: Sequence[Run]) -> list[list[Run]]:
    """Split runs by what they were tested on; those without a test stand with the first."""
    groups: dict[str, list[Run]] = {}
    untested = [run for run in members if not run.metrics]
    for run in members:
        if run.metrics:
            tested = (run.metrics.get("data"), run.metrics["test"]["examples"])
            groups.setdefault(json.dumps(tested, sort_keys=True), []).append(run)
    first, *others = list(groups.values()) or [[]]
    return [sorted([*first, *untested], key=list(members).index), *others]


def group_names(groups: Sequence[Group]) -> list[str]:
    """What to call each group: what its runs' names have in common, after their folder's where two have the same.

    Where that is not enough, it is the first run's name.
    """
    parent = common_parent([run.folder for members in groups for run in members])
    names = [_common_name([run.name for run in members]) for members in groups]
    folders = [shown(members[0].folder.absolute().parent.relative_to(parent)) for members in groups]
    in_folders = [
        name if names.count(name) == 1 else f"{folder}/{name}" for name, folder in zip(names, folders, strict=True)
    ]
    first = distinct_names([members[0] for members in groups])
    return [
        name if in_folders.count(name) == 1 else first[members[0].folder]
        for name, members in zip(in_folders, groups, strict=True)
    ]


def table_rows(groups: Sequence[Group]) -> list[ResultRow]:
    """One row per group, in their order; the ensembles of teachers have rows too, after the teachers."""
    rows: list[ResultRow] = []
    ensembles: list[ResultRow] = []
    for name, members in zip(group_names(groups), groups, strict=True):
        ensemble = _ensemble_row(members)
        if ensemble is not None and ensemble not in ensembles:
            ensembles.append(ensemble)
        rows.append(_row(name, members, groups))
    place = sum(row.role == "teacher" for row in rows)
    rows[place:place] = ensembles
    return [_told_apart(row, rows) for row in rows]


def _told_apart(row: ResultRow, rows: Sequence[ResultRow]) -> ResultRow:
    """The row, named with its test data's size where a row of the same name has another."""
    sizes = {other.examples for other in rows if other.name == row.name and other.examples}
    if row.examples is None or len(sizes) < 2:
        return row
    return row._replace(name=f"{row.name} ({row.examples:,} test {row.unit})")


def _row(name: str, members: Group, groups: Sequence[Group]) -> ResultRow:
    tested = [run.metrics for run in members if run.metrics]
    role: Role = role_of(members[0])
    plain = plain_student_of(members, groups) if role == "distilled" and tested else None
    saved = None if plain is None else saving(plain, members)
    return ResultRow(
        name=name,
        augment=_augment(members[0].config),
        runs=len(tested),
        errors=[metrics["test"]["errors"] for metrics in tested],
        examples=tested[0]["test"]["examples"] if tested else None,
        parameters=tested[0].get("parameters") if tested else None,
        compression=_average(tested, lambda m: m["teacher_parameters"] / m["parameters"]),
        agreement=_average(tested, lambda m: m["test"]["teacher_agreement"]),
        seconds=_average(tested, lambda m: m["train_seconds"]),
        interval=tuple(tested[0].get("error_rate_interval") or ()) or None if len(tested) == 1 else None,
        problem=next((run.problem for run in members if run.problem), None),
        unit=_unit(members),
        saved=None if saved is None else saved.mean,
        saved_interval=None if saved is None or saved.low is None or saved.high is None else (saved.low, saved.high),
        stopped_early=sum(run.stopped_early is not None for run in members),
        role=role,
    )


def _ensemble_row(members: Group) -> ResultRow | None:
    tested = [run.metrics for run in members if run.metrics.get("teachers", 0) > 1]
    if not tested:
        return None
    first = tested[0]
    return ResultRow(
        name=f"ensemble of {first['teachers']} teachers",
        augment=None,
        runs=1,
        errors=[first["test"]["teacher_errors"]],
        examples=first["test"]["examples"],
        parameters=first["teacher_parameters"],
        compression=None,
        agreement=None,
        seconds=None,
        unit=_unit(members),
        role=ENSEMBLE,
    )


def _unit(members: Group) -> str:
    """What the tested examples are; runs of version 0.1.0 don't record it, and had images."""
    return next((str(run.metrics["unit"]) for run in members if "unit" in run.metrics), "images")


def _augment(config: dict[str, Any]) -> str | None:
    try:
        return str(config["data"]["init_args"]["augment"]["class_path"]).rpartition(".")[2]
    except (KeyError, TypeError):
        return None


def _average(tested: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]) -> float | None:
    values = []
    for metrics in tested:
        try:
            value = read(metrics)
        except KeyError:
            continue
        if value is not None:
            values.append(value)
    return mean(values) if values else None


def _common_name(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    stripped = {re.sub(r"[-_]?(seed)?[-_]?\d+$", "", name) for name in names}
    return " / ".join(sorted(stripped))
