"""A verdict's table, on the terminal and as Markdown, JSON and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from kd_lightning.reports import plots
from kd_lightning.reports.console import table_console
from kd_lightning.reports.verdict import Verdict, judge, verdict_lines
from kd_lightning.runs.files import DETAILS_FILE, read_json, write_atomically, write_json, write_text

VERDICT = "verdict"  # name of the files
_HEADER = ["student", "errors", "n", "error %", "NLL", "calibration error", "parameters", "one example", "training"]


def verdict_of(lines: Sequence[Mapping[str, Any]], root: Path, study: str) -> Verdict:
    """Judge the rows plain, smoothed and distilled of a study by the seeds that all of them have.

    Args:
        lines: The lines of its table, see `studies.collect`.
        root: Folder of all studies' runs.
        study: The study's name, the folder of its runs.

    Raises:
        ValueError: If a row has no finished run.
    """
    runs = {
        line["row"]: {run["run"]: _run(run, root / study / run["run"]) for run in line["runs"]}
        for line in lines
        if line["runs"]
    }
    missing = [name for name in ("plain", "smoothed", "distilled") if not runs.get(name)]
    if missing:
        raise ValueError(f"a verdict needs runs of plain, smoothed and distilled, got none of {', '.join(missing)}")
    by_seed = {name: {run["seed"]: run for run in found.values()} for name, found in runs.items()}
    seeds = sorted(set.intersection(*(set(found) for found in by_seed.values())))
    plain, smoothed, distilled = (
        [by_seed[name][seed] for seed in seeds] for name in ("plain", "smoothed", "distilled")
    )
    return judge(plain, distilled, smoothed)


def _run(measured: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Seed, errors and wrong rows of a finished run."""
    details = folder / DETAILS_FILE
    tables = read_json(details).get("tables", {}) if details.is_file() else {}
    return {"seed": measured["seed"], "errors": measured["errors"], "wrong": tables.get("wrong_rows")}


def print_verdict(verdict: Verdict, lines: Sequence[Mapping[str, Any]], name: str) -> None:
    """Print the table and the verdict."""
    console = table_console()
    table = Table(title=f"{name}: errors on the test examples, mean ± standard deviation over n seeds")
    for column in _HEADER:
        table.add_column(column, justify="left" if column == "student" else "right")
    for cells in map(_cells, lines):
        table.add_row(*cells)
    console.print(table)
    for line in verdict_lines(verdict):
        console.print(line, highlight=False, markup=False)


def write_verdict(verdict: Verdict, lines: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write verdict.md, verdict.json and verdict.png.

    Args:
        verdict: The verdict.
        lines: The lines of the study's table.
        output: Folder of the files.
    """
    rows = [_HEADER, ["---", *["---:"] * (len(_HEADER) - 1)], *map(_cells, lines)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    sentences = "\n\n".join(verdict_lines(verdict))
    write_text(output / f"{VERDICT}.md", f"{sentences}\n\n{table}\n![errors by seed]({VERDICT}.png)\n")
    write_json(output / f"{VERDICT}.json", {**verdict.as_dict(), "text": verdict_lines(verdict)})
    errors = {line["what"]: line["errors"] for line in lines}
    figure = plots.verdict(errors, verdict.against_plain.mean, verdict.against_plain.low, verdict.against_plain.high)
    write_atomically(output / f"{VERDICT}.png", lambda part: part.write_bytes(plots.as_png(figure)))


def _cells(line: Mapping[str, Any]) -> list[str]:
    """What a row's runs measured, on average."""
    runs = line["runs"]
    costs = [run["costs"]["net"] for run in runs if run.get("costs")]
    errors = f"{line['mean']:.1f}" + ("" if line["sd"] is None else f" ± {line['sd']:.1f}")
    return [
        line["what"],
        errors,
        str(line["n"]),
        f"{100 * line['mean'] / runs[0]['examples']:.2f}",
        f"{mean(run['test']['nll'] for run in runs):.4f}",
        f"{mean(run['test']['ece'] for run in runs):.4f}",
        f"{runs[0]['parameters']:,}",
        f"{min(cost['single_ms'] for cost in costs):.3f} ms" if costs else "–",
        f"{line['train_seconds']:.1f} s",
    ]
