"""Runs -> rows of a table: on the terminal, as Markdown and as CSV."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from kd_lightning.reports.run_folders import Run
from kd_lightning.runs.files import write_text

_WORDS = ("run", "augment")  # columns of text
# What two runs of one experiment may differ in and still stand in one row.
_PER_RUN = ("seed_everything", "run_dir")


class Row(NamedTuple):
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

    def cells(self) -> dict[str, str]:
        """The row as text, by column."""
        percent = [100 * count / self.examples for count in self.errors] if self.examples else []
        return {
            "run": self.name,
            "augment": self.augment or "–",
            "n": str(self.runs),
            "errors": _spread(self.errors, ".1f") if self.errors else self.problem or "not tested",
            "error %": _spread(percent, ".2f") + _interval_text(self.interval),
            "parameters": _number(self.parameters, ",d"),
            "compression": _number(self.compression, ".1f", "x"),
            "agreement": _number(None if self.agreement is None else 100 * self.agreement, ".1f", " %"),
            "training": _number(self.seconds, ".1f", " s"),
        }


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ only by their seed and were tested on the same data, together, in the order given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.config.items() if key not in _PER_RUN}
        key = json.dumps(shared, sort_keys=True, default=str) if shared else str(run.folder)
        groups.setdefault(key, []).append(run)
    return [group for members in groups.values() for group in _by_test_data(members)]


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


def table_rows(groups: Sequence[Sequence[Run]]) -> list[Row]:
    """One row per group; the ensembles that taught have rows too."""
    rows: list[Row] = []
    for members in groups:
        ensemble = _ensemble_row(members)
        if ensemble is not None and ensemble not in rows:
            rows.append(ensemble)
        rows.append(_row(members))
    return [_told_apart(row, rows) for row in rows]


def _told_apart(row: Row, rows: Sequence[Row]) -> Row:
    """The row, named with its test data's size where a row of the same name has another."""
    sizes = {other.examples for other in rows if other.name == row.name and other.examples}
    if row.examples is None or len(sizes) < 2:
        return row
    return row._replace(name=f"{row.name} ({row.examples:,} test {row.unit})")


def print_table(rows: Sequence[Row]) -> None:
    """Print the table to the terminal."""
    table = Table(title=title(rows))
    cells = [row.cells() for row in rows]
    for column in cells[0]:
        table.add_column(column, justify="left" if column in _WORDS else "right")
    for line in cells:
        table.add_row(*line.values())
    console = Console()
    # Where the output is a file or a pipe there is no width to fit into.
    (console if console.is_terminal else Console(width=120)).print(table)


def write_tables(rows: Sequence[Row], problems: Sequence[str], output: Path) -> None:
    """Write report.md and report.csv into a folder, which is made where it is missing.

    Args:
        rows: Of the table.
        problems: What is wrong with runs, one text per run.
        output: The folder.
    """
    cells = [row.cells() for row in rows]
    header = list(cells[0])
    lines = [
        header,
        ["---" if name in _WORDS else "---:" for name in header],
        *(list(c.values()) for c in cells),
    ]
    page = f"{title(rows)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if problems:
        page += "\nNot finished or damaged:\n\n" + "".join(f"- {problem}\n" for problem in problems)
    write_text(output / "report.md", page)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*Row._fields[:3], "errors_mean", "errors_sd", *Row._fields[3:]])
    for row in rows:
        spread = stdev(row.errors) if len(row.errors) > 1 else ""
        average = mean(row.errors) if row.errors else ""
        writer.writerow([*row[:3], average, spread, " ".join(map(str, row.errors)), *row[4:]])
    write_text(output / "report.csv", table.getvalue())


def _row(members: Sequence[Run]) -> Row:
    tested = [run.metrics for run in members if run.metrics]
    return Row(
        name=_common_name([run.name for run in members]),
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
    )


def _ensemble_row(members: Sequence[Run]) -> Row | None:
    taught = [run.metrics for run in members if run.metrics.get("teachers", 0) > 1]
    if not taught:
        return None
    first = taught[0]
    return Row(
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
    )


def _unit(members: Sequence[Run]) -> str:
    """What the tested examples are; runs of version 0.1.0 don't say, and had images."""
    return next((str(run.metrics["unit"]) for run in members if "unit" in run.metrics), "images")


def _augment(config: dict[str, Any]) -> str | None:
    try:
        return str(config["data"]["init_args"]["augment"]["class_path"]).rpartition(".")[2]
    except (KeyError, TypeError):
        return None


def title(rows: Sequence[Row]) -> str:
    """What the table shows."""
    counts = sorted({row.examples for row in rows if row.examples})
    units = " and ".join(dict.fromkeys(row.unit for row in rows if row.examples))
    tested = f" of {' or '.join(f'{count:,}' for count in counts)} test {units}" if counts else ""
    return f"errors{tested}, mean ± standard deviation over n seeds"


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


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:g}"
    return f"{mean(values):{form}} ± {stdev(values):{form}}"


def _interval_text(interval: tuple[float, float] | None) -> str:
    return f" ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})" if interval else ""


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
