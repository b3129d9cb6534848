"""What a study's runs measured: one line per row, on the terminal, as Markdown, CSV and JSON."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from kd_lightning.reports.console import table_console
from kd_lightning.reports.study_row import Study, StudyRow
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint
from kd_lightning.runs.files import METRICS_FILE, flat, read_json, write_json, write_text

DONE_FILE = "row.json"  # in a finished run's folder: the settings it was done with
_MOST_SEEDS = 1000
_COLUMNS = ("row", "what", "paper", "n", "mean", "sd", "errors", "train_seconds", "command", "configs", "set")


def is_done(run: Path, settings: dict[str, Any]) -> bool:
    """Whether a run is finished.

    Args:
        run: Its folder.
        settings: What it is to be done with.

    Raises:
        ValueError: If it was done with other settings.
    """
    if not (run / DONE_FILE).is_file():
        return False
    changed = _changed(run, settings)
    if changed:
        raise ValueError(f"{run} was done with other settings ({changed}); delete it, or choose another --root")
    return True


def measured(run: Path, row: StudyRow) -> dict[str, Any]:
    """What a finished run measured: its errors, of how many examples, and its training time among others."""
    if row.measure == "test":
        metrics: dict[str, Any] = read_json(run / METRICS_FILE)
        test = metrics["test"]
        return {"run": run.name, "errors": test["errors"], "examples": test["examples"], **metrics}
    record = read_checkpoint(run / CHECKPOINT_DIR / LAST)[RECORD_KEY]
    # Older runs lack it; val_size is not the same if it counts recordings.
    counted = record.get("data", {}).get("validation_examples")
    examples = int(counted or record["config"]["data"]["init_args"]["val_size"])
    errors = round(examples * (1 - record["validation"]["val/accuracy"]))
    found = {"run": run.name, "errors": errors, "examples": examples, "train_seconds": record["train_seconds"]}
    return found | {"hardware": record.get("hardware")}


def collect(study: Study, root: Path, settings_of: Callable[[StudyRow], dict[str, Any]], command: str) -> list[Any]:
    """The table's lines: a row's runs, after the ensemble of their teachers if there are several.

    Args:
        study: The study.
        root: Folder of all studies' runs.
        settings_of: Gives what a row's runs are done with; others are left out.
        command: The command that runs the study.
    """
    lines: dict[str, dict[str, Any]] = {}  # an ensemble stands once
    for row in study.rows:
        runs = [measured(run, row) for run in finished_runs(row, root, settings_of(row))]
        if not runs:
            continue
        line = {
            "row": row.name,
            "what": row.what,
            "paper": row.paper,
            **_spread([run["errors"] for run in runs]),
            "sequences": _over_sequences(runs, "errors"),
            "train_seconds": mean(run["train_seconds"] for run in runs),
            "command": command if len(study.rows) <= 2 else f"{command} --rows {row.name}",
            "configs": [str(config) for config in row.configs],
            "set": row.options,
            "runs": runs,
        }
        members = len(row.teacher_folders(root))
        if members > 1 and "teacher_errors" in runs[0].get("test", {}):
            ensemble = {
                "row": " + ".join(f"{teacher.name} x {seeds}" for teacher, seeds in row.teachers),
                "what": _together(row, members),
                "paper": None,
                **_spread([runs[0]["test"]["teacher_errors"]]),
                "sequences": _over_sequences(runs[:1], "teacher_errors"),
                "train_seconds": None,
                "configs": [],
                "set": {},
                "runs": [],
            }
            lines.setdefault(ensemble["row"], line | ensemble)
        lines[row.name] = line
    return list(lines.values())


def _together(row: StudyRow, members: int) -> str:
    """What a row's ensemble is called in the table."""
    if len(row.teachers) == 1:
        return f"these {members} teachers together"
    return f"{' and '.join(f'{seeds} of {teacher.name}' for teacher, seeds in row.teachers)} together"


def finished_runs(row: StudyRow, root: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """The finished runs of a row, by any call; runs with other settings are left out, with a log line."""
    for seed in range(_MOST_SEEDS):
        run = row.folder(root, seed)
        if (run / DONE_FILE).is_file():
            changed = _changed(run, settings)
            if changed:
                print(f"{run} was done with other settings ({changed}) and is left out")
            else:
                yield run


def print_summary(lines: Sequence[dict[str, Any]], name: str) -> None:
    """Print the table."""
    table = Table(title=f"{name}: {_title(lines)}")
    header, *cells = _cells(lines)
    for column in header:
        table.add_column(column, justify="left" if column == "row" else "right")
    for line in cells:
        table.add_row(*line)
    table_console().print(table)


def write_summary(lines: Sequence[dict[str, Any]], output: Path, name: str, wall_seconds: float | None) -> None:
    """Write the table as Markdown, CSV and JSON.

    Args:
        lines: The table's lines.
        output: Folder of the files, which is made where it is missing.
        name: Name of the files.
        wall_seconds: What all took from nothing, in one call; None where it was done in several.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / f"{name}.md", f"{markdown(lines)}\n{_circumstances(lines, wall_seconds)}\n")
    write_json(output / f"{name}.json", list(lines))
    write_csv(lines, output / f"{name}.csv")


def write_csv(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the table as CSV, with texts in place of lists and mappings."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            {**line, "configs": " ".join(line["configs"]), "set": json.dumps(line["set"])} for line in lines
        )


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown, below the command that makes it; the first column is what `--rows` takes."""
    header, *cells = _cells(lines)
    rows = [
        ["--rows", *header],
        ["---", "---", *["---:"] * (len(header) - 1)],
        *([f"`{line['row']}`" if line["runs"] else "", *row] for line, row in zip(lines, cells, strict=True)),
    ]
    command = lines[0]["command"].partition(" --rows")[0]
    return f"`{command}`\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and lines of the table; a paper's figures, and errors over whole sequences, where there are some."""
    with_paper = any(line["paper"] is not None for line in lines)
    over = next((line["sequences"] for line in lines if line.get("sequences")), None)
    more = [] if over is None else [f"{over['kind']} errors of {over['count']:,}"]
    return [
        ["row", *["paper"] * with_paper, "errors", *more, "n", "training"],
        *(
            [
                line["what"],
                *["–" if line["paper"] is None else f"{line['paper']:g}"] * with_paper,
                _mean_text(line),
                *["–" if line.get("sequences") is None else _mean_text(line["sequences"])] * len(more),
                str(line["n"]),
                "–" if line["train_seconds"] is None else _duration(line["train_seconds"]),
            ]
            for line in lines
        ),
    ]


def _spread(errors: list[int]) -> dict[str, Any]:
    return {
        "n": len(errors),
        "mean": mean(errors),
        "sd": stdev(errors) if len(errors) > 1 else None,
        "errors": errors,
    }


def _over_sequences(runs: Sequence[dict[str, Any]], count: str) -> dict[str, Any] | None:
    """Errors over whole sequences, such as words; None where no example is part of one."""
    found = [run["sequences"] for run in runs if count in run.get("sequences", {})]
    if not found:
        return None
    kept = {name: found[0][name] for name in ("unit", "kind", "count")}
    return kept | _spread([each[count] for each in found])


def _mean_text(spread: dict[str, Any]) -> str:
    return f"{spread['mean']:.1f} ± {spread['sd']:.1f}" if spread["sd"] is not None else f"{spread['mean']:.0f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _long(seconds: float) -> str:
    """A duration that may be hours."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _title(lines: Sequence[dict[str, Any]]) -> str:
    runs = [run for line in lines for run in line["runs"]]
    counts = sorted({run["examples"] for run in runs})
    split = "test" if any("test" in run for run in runs) else "validation"
    return f"errors of {' or '.join(f'{count:,}' for count in counts)} {split} examples, mean ± standard deviation"


def _circumstances(lines: Sequence[dict[str, Any]], wall_seconds: float | None) -> str:
    """Seeds, machine, threads and versions, in a sentence."""
    runs = [run for line in lines for run in line["runs"]]
    versions: dict[str, set[str]] = {}
    for name, version in (each for run in runs for each in run.get("versions", {}).items()):
        versions.setdefault(name, set()).add(version)
    threads = sorted({run["threads"] for run in runs if "threads" in run})
    seconds = sum(run["train_seconds"] for run in runs)
    hardware = sorted({run.get("hardware") or "a machine that is not recorded" for run in runs})
    title = _title(lines)
    facts = [
        f"{title[0].upper()}{title[1:]} over n seeds from 0",
        f"training is the mean wall time of a run on {' or '.join(hardware)}"
        + (f", threads: {' or '.join(map(str, threads))}" if threads else "")
        + f", {_long(seconds)} for all",
        *[", ".join(f"{name} {' or '.join(sorted(found))}" for name, found in versions.items())][: len(versions)],
    ]
    return (
        "; ".join(facts) + "." + (f" All in one call, tests included: {_long(wall_seconds)}." if wall_seconds else "")
    )


def _changed(run: Path, settings: dict[str, Any]) -> str:
    """The first of the settings in which a finished run differs, empty where there is none."""
    before, now = dict(flat(read_json(run / DONE_FILE))), dict(flat(settings))
    for key in sorted(before.keys() | now.keys()):
        if json.dumps(before.get(key)) != json.dumps(now.get(key)):  # .nan equals itself here
            name = key.removeprefix("options.")
            remedy = f"; take --threads {before[key]}" if key == "threads" and key in before else ""
            return f"{name}: the run has {before.get(key)!r}, asked for {now.get(key)!r}{remedy}"
    return ""
