"""The report's table: on the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.table import Table

from kd_lightning.reports.console import table_console
from kd_lightning.reports.rows import ENSEMBLE, ResultRow
from kd_lightning.runs.files import write_text
from kd_lightning.runs.texts import say

ALWAYS = ("run", "errors", "error %")  # columns that stand in every table
WORDS = ("run", "augment")  # columns of text
SAVED = "errors saved"
_MEANINGS = {
    SAVED: "against the plain student, with a 95 % interval over seeds, or over the test examples where there is one "
    "seed",
    "compression": "parameters of all teachers / of the student",
    "agreement": "test examples on which student and teachers name the same class",
    "training": "wall time of a run's training",
}
ABSENT = "–"
_DISPENSABLE = ("training", "compression", "augment", "parameters", "agreement")  # left out first where it is narrow
_FOLDED = 30  # characters of a cell above which it may be folded
PIPE_WIDTH = 140  # where the output is a file or a pipe there is no width to fit into


def cells_of(rows: Sequence[ResultRow]) -> list[dict[str, str]]:
    """The rows as text by column; a column that is empty or the same in all rows is left out."""
    cells = [_cells(row) for row in rows]
    kept = [name for name in cells[0] if name in ALWAYS or _is_informative([line[name] for line in cells])]
    return [{name: line[name] for name in kept} for line in cells]


def notes(columns: Sequence[str]) -> list[str]:
    """What the columns of a table mean, where their names don't say it."""
    return [f"{name}: {meaning}" for name, meaning in _MEANINGS.items() if name in columns]


def title(rows: Sequence[ResultRow]) -> str:
    """What the table shows."""
    counts = sorted({row.examples for row in rows if row.examples})
    units = " and ".join(dict.fromkeys(row.unit for row in rows if row.examples))
    tested = f" of {' or '.join(f'{count:,}' for count in counts)} test {units}" if counts else ""
    seeds = {row.runs for row in rows if row.runs and row.role != ENSEMBLE}
    if seeds <= {1}:
        return f"errors{tested}"
    how_many = f"{seeds.pop()} seeds" if len(seeds) == 1 else "n seeds"
    return f"errors{tested}, mean ± standard deviation over {how_many}"


def print_report(rows: Sequence[ResultRow], lines: Sequence[str]) -> None:
    """Print the table to the terminal, without the columns for which it is too narrow, and lines below it."""
    console, cells = table_console(PIPE_WIDTH), cells_of(rows)
    columns = list(cells[0])
    left_out = []
    for name in _DISPENSABLE:
        if name in columns and _width(cells, columns) > console.width:
            columns.remove(name)
            left_out.append(name)
    table = Table(title=title(rows))
    for column in columns:
        table.add_column(column, justify="left" if column in WORDS else "right", overflow="fold")
    for line in cells:
        table.add_row(*(line[column] for column in columns))
    console.print(table)
    more = [f"{', '.join(left_out)}: see report.md"] if left_out else []
    for text in [*lines, *notes(columns), *more]:
        say(text)


def _width(cells: Sequence[dict[str, str]], columns: Sequence[str]) -> int:
    """Characters of a line of the table; a sentence in place of errors may be folded."""
    widths = [max(len(column), *(min(len(line[column]), _FOLDED) for line in cells)) for column in columns]
    return sum(widths) + 3 * len(columns) + 1


def write_tables(rows: Sequence[ResultRow], findings: Sequence[str], problems: Sequence[str], output: Path) -> None:
    """Write report.md and report.csv into a folder, which is made where it is missing.

    Args:
        rows: Of the table.
        findings: What is odd about the results, a line each.
        problems: What is wrong with runs, one text per run.
        output: The folder.
    """
    cells = cells_of(rows)
    header = list(cells[0])
    lines = [
        header,
        ["---" if name in WORDS else "---:" for name in header],
        *(list(c.values()) for c in cells),
    ]
    page = f"{title(rows)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page += "".join(f"\n{note}\n" for note in notes(header))
    page += "".join(f"\n**{finding}**\n" for finding in findings)
    if problems:
        page += "\nNot finished or damaged:\n\n" + "".join(f"- {problem}\n" for problem in problems)
    write_text(output / "report.md", page)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*ResultRow._fields[:3], "errors_mean", "errors_sd", *ResultRow._fields[3:]])
    for row in rows:
        spread = stdev(row.errors) if len(row.errors) > 1 else ""
        average = mean(row.errors) if row.errors else ""
        writer.writerow([*row[:3], average, spread, " ".join(map(str, row.errors)), *row[4:]])
    write_text(output / "report.csv", table.getvalue())


def _cells(row: ResultRow) -> dict[str, str]:
    """The row as text, by column; empty where a column does not apply to an ensemble."""
    percent = [100 * count / row.examples for count in row.errors] if row.examples else []
    ensemble = row.role == ENSEMBLE
    absent = "" if ensemble else ABSENT
    return {
        "run": row.name + _unfinished(row),
        "augment": "" if ensemble else row.augment or "none",
        "n": "" if ensemble else str(row.runs),
        "errors": _spread(row.errors, ",.0f", ",.1f") if row.errors else row.problem or "not tested",
        "error %": _spread(percent, ".2f", ".2f") + _interval(row.interval, 100, ".2f"),
        SAVED: absent if row.saved is None else f"{row.saved:,.1f}{_interval(row.saved_interval, 1, ',.1f')}",
        "parameters": _number(row.parameters, ",d", absent=absent),
        "compression": _number(row.compression, ".1f", "x", absent),
        "agreement": _number(None if row.agreement is None else 100 * row.agreement, ".1f", " %", absent),
        "training": _number(row.seconds, ".1f", " s", absent),
    }


def _is_informative(column: Sequence[str]) -> bool:
    """Whether a column's cells differ or, in a table of one row, hold a value; empty ones don't count."""
    values = {cell for cell in column if cell}
    return len(values) > 1 if len(column) > 1 else bool(values - {ABSENT, "none"})


def _unfinished(row: ResultRow) -> str:
    if not row.stopped_early:
        return ""
    return ", unfinished" if row.stopped_early >= row.runs else f", {row.stopped_early} of {row.runs} unfinished"


def _spread(values: Sequence[float], one: str, several: str) -> str:
    """A value, or mean and standard deviation of several, each with its format."""
    if not values:
        return ABSENT
    if len(values) == 1:
        return f"{values[0]:{one}}"
    return f"{mean(values):{several}} ± {stdev(values):{several}}"


def _interval(interval: tuple[float, float] | None, factor: float, form: str) -> str:
    return f" ({factor * interval[0]:{form}} to {factor * interval[1]:{form}})" if interval else ""


def _number(value: float | None, form: str, unit: str = "", absent: str = ABSENT) -> str:
    return absent if value is None else f"{value:{form}}{unit}"
