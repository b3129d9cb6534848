"""The results that people read: the lines after `fit`, the tables after `validate` and `test`."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from rich.table import Table
from torch import Tensor

from kd_lightning.reports.console import table_console
from kd_lightning.runs.texts import counted
from kd_lightning.training.beforehand import clearly_fewer, errors_of_plain

# Figures of a test in addition to the errors: key, words, format.
_FIGURES = (
    ("nll", "negative log-likelihood, nats", "{:.4f}"),
    ("ece", "calibration error", "{:.4f}"),
    ("brier", "Brier score", "{:.4f}"),
    ("top2_accuracy", "label among the first two", "{:.2f} %"),
    ("teacher_agreement", "same class as the teachers", "{:.2f} %"),
)
_SHOWN_FIRST = {"errors", "examples", "accuracy", "teacher_errors"}


def lines_of_fit(
    records: Sequence[Mapping[str, Any]], accuracy: float | None, unit: str, plain: Mapping[str, int]
) -> list[str]:
    """The student's and the teachers' validation errors; empty if they were not measured on the same examples.

    Args:
        records: The entries of teachers.json.
        accuracy: The student's after the last epoch, in [0, 1]; None where nothing validated.
        unit: What an example is, in the plural.
        plain: Errors of plain students on the same examples, by run.
    """
    measured = [record for record in records if record.get("split") == "validation"]
    if accuracy is None or not measured:
        return []
    examples = measured[0]["examples"]
    student = round(examples * (1 - accuracy))
    best = min(record["errors"] for record in measured)
    who = "its teacher" if len(measured) == 1 else f"the best of {len(measured)} teachers"
    lines = [f"validation: the student makes {counted(student, 'error')} on {examples:,} {unit}, {who} {best:,}"]
    theirs = mean(plain.values()) if plain else math.inf
    if student >= theirs:
        effect = "did harm" if clearly_fewer(theirs, student) else "did not help"
        lines.append(
            f"the student makes {counted(student, 'error')}, {errors_of_plain(plain)}: distillation {effect} here"
        )
    elif student <= best:
        lines.append(
            f"the student is as good as {who}: it has nothing left to learn from it; train the teacher for longer"
        )
    return lines


def table_of_test(record: Mapping[str, Any], tested: str) -> Table:
    """The figures of a test.

    Args:
        record: Content of metrics.json.
        tested: The run and its checkpoint.
    """
    test, unit = record["test"], record["unit"]
    table = Table(title=f"test set: {tested}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("errors", f"{test['errors']:,} of {test['examples']:,} {unit}")
    if record["error_rate_interval"] is None:  # no whole sequence was tested
        table.add_row("error rate", _rate(test))
    else:
        low, high = record["error_rate_interval"]
        table.add_row("error rate, 95 % interval", f"{_rate(test)}, {100 * low:.2f} to {100 * high:.2f} %")
    if "teacher_errors" in test:
        together = "teacher's errors" if record.get("teachers") == 1 else "errors of the teachers together"
        table.add_row(together, f"{test['teacher_errors']:,}")
    for key, words, form in _FIGURES:
        if key in test:
            table.add_row(words, form.format(test[key] * (100 if "%" in form else 1)))
    for key in sorted(test.keys() - _SHOWN_FIRST - {key for key, *_ in _FIGURES}):
        table.add_row(key, f"{test[key]:.4g}")
    return table


def table_of_validation(measured: Mapping[str, Tensor]) -> Table:
    """The figures of a validation.

    Args:
        measured: Scalars by key, such as val/accuracy.
    """
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, value in measured.items():
        table.add_row(key, f"{float(value):.4f}")
    return table


def print_table(table: Table) -> None:
    """Print a table."""
    table_console().print(table)


def _rate(test: Mapping[str, Any]) -> str:
    return f"{100 * test['errors'] / test['examples']:.2f} %"
