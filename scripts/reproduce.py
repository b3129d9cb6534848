"""The paper's MNIST table: train, test and summarise its rows, several seeds each.

    python -m scripts.reproduce                              # one teacher and its students, two hours on one core
    python -m scripts.reproduce --rows '[distilled-300]'     # these rows and the teachers that they need
    python -m scripts.reproduce --group sweep                # another: teachers, ensemble, strong, minutes
    python -m scripts.reproduce --group tuning               # the choices that were made, on a validation split
    python -m scripts.reproduce --config my.yaml --seeds 5   # your own configuration, against its plain student

What is done is skipped and what was cut short goes on, so it can be stopped and started at any time. Calls side by side
share the runs between them: start one per core. Final runs train on all 60,000 images, have no validation split and
report their last epoch; the test set is read once per run. Choices are made by the tuning rows, which see validation
images alone.
"""

import csv
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import jsonargparse
import torch
import yaml
from rich.console import Console
from rich.table import Table

from kd_lightning.cli.command_line import main
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint
from kd_lightning.runs.files import METRICS_FILE, read_json, write_json
from scripts.rows import ALL_ROWS, GROUPS, ON_VALIDATION, Row, options

TUNING_VAL_SIZE = 5000
DONE = "row.json"  # in a finished run's folder: the settings it was done with
WAIT_SECONDS = 5.0  # between two looks at what other calls have done


def run(
    group: Literal["table", "teachers", "ensemble", "strong", "minutes", "sweep", "fast-mode", "tuning"] = "table",
    rows: list[str] | None = None,
    config: str | None = None,
    seeds: int | None = None,
    threads: int = 1,
    data_dir: str = "data",
    root: str = "runs/mnist-table",
    output: str = "docs/results",
) -> None:
    """Do the rows and write their summary.

    Args:
        group: Which rows.
        rows: Names of rows of the group; all by default.
        config: A configuration of your own instead of the rows.
        seeds: How many seeds each; by default as many as the row says, 5 for your own.
        threads: Threads of a run, >= 1. With one, a call per core does more in an hour than one call on all cores.
        data_dir: Where MNIST is, or is downloaded to.
        root: Folder of the runs.
        output: Folder of the summary: .md, .csv and .json.
    """
    started = time.monotonic()
    torch.set_num_threads(threads)
    if config is not None:
        table, name = own_rows(Path(config), seeds or 5), Path(config).stem
        root = f"{root}-own"
    else:
        table, name = GROUPS[group], f"mnist-{group}"
    on_validation = config is None and group in ON_VALIDATION
    folder = Path(f"{root}-validation" if on_validation else root)
    jobs = [(row, seed) for row, count in with_needs(table, rows, seeds) for seed in range(count)]
    todo = [job for job in jobs if not is_done(*job, folder)]
    do_all(todo, folder, data_dir, on_validation=on_validation)
    found = [result for row in table for result in collect(row, folder, group, on_validation=on_validation)]
    results = list({result["row"]: result for result in found}.values())  # an ensemble stands once
    if len(todo) == len(jobs):  # nothing was there before
        results[-1]["wall_seconds"] = time.monotonic() - started
    write_summary(results, Path(output), name)


def do_all(jobs: Sequence[tuple[Row, int]], folder: Path, data_dir: str, *, on_validation: bool) -> None:
    """Do runs, each when its teachers are there; other calls of this script on the folder do their share."""
    left = list(jobs)
    while left:
        for row, seed in left:
            with _claimed(folder / f".{row.name}-{seed}.lock") as free:
                taught = all((teacher / DONE).is_file() for teacher in _teachers(row, folder))
                if free and taught and not is_done(row, seed, folder):
                    do(row, seed, folder, data_dir, on_validation=on_validation)
                    break
        else:
            time.sleep(WAIT_SECONDS)
        left = [job for job in left if not is_done(*job, folder)]


def own_rows(config: Path, seeds: int) -> list[Row]:
    """A configuration of the user's, and its plain student where it distills.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not config.is_file():
        raise FileNotFoundError(f"no configuration {config}")
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    own = [Row(config.stem, config.stem, str(config), (), seeds)]
    if str(content.get("model", {}).get("class_path", "")).endswith("DistillModule"):
        plain = options(model__soft_weight=0.0, model__teachers="null")
        own.insert(0, Row(f"{config.stem}-plain", f"{config.stem}, plain student", str(config), plain, seeds))
    return own


def with_needs(
    table: Sequence[Row], names: Sequence[str] | None = None, seeds: int | None = None
) -> list[tuple[Row, int]]:
    """The named rows behind the teachers that they need, each with its number of seeds.

    Args:
        table: All rows of the group.
        names: Those that are wanted; all by default.
        seeds: How many of each, by default as many as the row says; of teachers as many as are needed.

    Raises:
        ValueError: If there is no such row.
    """
    known = {row.name: row for row in table}
    unknown = set(names or ()) - known.keys()
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [row for row in table if not names or row.name in names]
    counts: dict[Row, int] = {}
    for row in chosen:
        for name in row.needs:
            teacher = known.get(name) or ALL_ROWS[name]
            counts[teacher] = max(counts.get(teacher, 0), row.teachers)
    for row in chosen:
        counts[row] = max(counts.get(row, 0), seeds or row.seeds)
    return list(counts.items())


def is_done(row: Row, seed: int, folder: Path) -> bool:
    """Whether a run is finished.

    Raises:
        ValueError: If it was done with other settings.
    """
    run_dir = folder / f"{row.name}-{seed}"
    done = run_dir / DONE
    if not done.is_file():
        return False
    if read_json(done) != _settings(row):
        raise ValueError(f"{run_dir} was done with other settings; delete it, or choose another --root")
    return True


def do(row: Row, seed: int, folder: Path, data_dir: str, *, on_validation: bool) -> None:
    """Train and test one run, or go on with it; end the program where that fails."""
    run_dir = folder / f"{row.name}-{seed}"
    config = _config_file(row)
    fit = ["fit", "--config", config, "--run_dir", str(run_dir), "--seed_everything", str(seed), "--ckpt_path", "last"]
    if config != row.config:
        fit += ["--data.data_dir", data_dir, "--data.val_size", str(TUNING_VAL_SIZE if on_validation else 0)]
    if row.needs:
        fit += ["--model.teachers", json.dumps([str(teacher) for teacher in _teachers(row, folder)])]
        fit += ["--model.store.folder", str(folder / "soft_targets")]
    commands = [[*fit, *row.flags]]
    if not on_validation:
        commands.append(["test", "--ckpt_path", str(run_dir / CHECKPOINT_DIR / LAST)])
    for command in commands:
        print(f"\n$ python -m kd_lightning {shlex.join(command)}", flush=True)
        code = main(command)
        if code:
            sys.exit(code)
    write_json(run_dir / DONE, _settings(row))


def collect(row: Row, folder: Path, group: str, *, on_validation: bool) -> list[dict[str, Any]]:
    """What the runs of a row measured, behind the ensemble that taught them where it has several members."""
    runs: list[dict[str, Any]] = []
    for run_dir in _folders(row, folder):
        if on_validation:
            record = read_checkpoint(run_dir / CHECKPOINT_DIR / LAST)[RECORD_KEY]
            errors = round(TUNING_VAL_SIZE * (1 - record["validation"]["val/accuracy"]))
            runs.append({"run": run_dir.name, "errors": errors, "train_seconds": record["train_seconds"]})
        else:
            metrics = read_json(run_dir / METRICS_FILE)
            runs.append({"run": run_dir.name, "errors": metrics["test"]["errors"], **metrics})
    if not runs:
        return []
    command = f"--config {row.config}" if row.config.endswith(".yaml") else f"--group {group} --rows '[{row.name}]'"
    result = {
        "row": row.name,
        "what": row.what,
        "paper": row.paper,
        **_spread([each["errors"] for each in runs]),
        "train_seconds": mean(each["train_seconds"] for each in runs),
        "command": f"python -m scripts.reproduce {command}",
        "flags": shlex.join(row.flags),
        "runs": runs,
    }
    members = len(_teachers(row, folder))
    if members < 2 or on_validation:
        return [result]
    ensemble = {
        "row": " + ".join(f"{name} x {row.teachers}" for name in row.needs),
        "what": f"the {members} teachers of the next row together",
        "paper": None,
        **_spread([runs[0]["test"]["teacher_errors"]]),
        "train_seconds": None,
        "flags": "",
        "runs": [],
    }
    return [result | ensemble, result]


def write_summary(results: Sequence[dict[str, Any]], output: Path, name: str) -> None:
    """Print the table, and write it as Markdown, CSV and JSON."""
    output.mkdir(parents=True, exist_ok=True)
    header = ["row", "paper", "errors", "n", "training", "command"]
    lines = [
        [
            result["what"],
            str(result["paper"] or "–"),
            f"{result['mean']:.1f} ± {result['sd']:.1f}" if result["sd"] is not None else f"{result['mean']:.0f}",
            str(result["n"]),
            "–" if result["train_seconds"] is None else f"{result['train_seconds']:.0f} s",
            result["command"],
        ]
        for result in results
    ]
    table = Table(title=name)
    for column in header[:-1]:
        table.add_column(column, justify="left" if column == "row" else "right")
    for line in lines:
        table.add_row(*line[:-1])
    Console().print(table)
    markdown = [header, ["---", *["---:"] * 4, "---"], *([*line[:-1], f"`{line[-1]}`"] for line in lines)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in markdown)
    (output / f"{name}.md").write_text(f"{text}\n{_hardware(results)}\n", encoding="utf-8")
    (output / f"{name}.json").write_text(json.dumps(list(results), indent=2) + "\n", encoding="utf-8")
    with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["row", "what", "paper", "n", "mean", "sd", "errors", "train_seconds", "command", "flags"]
        writer.writerow(names)
        writer.writerows([result[column] for column in names] for result in results)
    print(f"written: {output / name}.md, .csv and .json")


def _spread(errors: list[int]) -> dict[str, Any]:
    return {
        "n": len(errors),
        "mean": mean(errors),
        "sd": stdev(errors) if len(errors) > 1 else None,
        "errors": errors,
    }


def _config_file(row: Row) -> str:
    return row.config if row.config.endswith(".yaml") else f"configs/mnist/{row.config}.yaml"


def _settings(row: Row) -> dict[str, Any]:
    """What makes a run what it is: also its teachers, and its threads, on which sums depend in their last bits."""
    settings: dict[str, Any] = {
        "config": yaml.safe_load(Path(_config_file(row)).read_text(encoding="utf-8")),
        "flags": list(row.flags),
        "threads": torch.get_num_threads(),
    }
    if row.needs:
        settings |= {"seeds_of_each": row.teachers, "teachers": [_settings(ALL_ROWS[name]) for name in row.needs]}
    return settings


def _teachers(row: Row, folder: Path) -> list[Path]:
    """Folders of the runs that teach."""
    return [folder / f"{name}-{seed}" for name in row.needs for seed in range(row.teachers)]


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Hold a file's lock and yield True, or yield False where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _folders(row: Row, folder: Path) -> Iterator[Path]:
    """The finished runs of a row."""
    for seed in range(1000):
        run_dir = folder / f"{row.name}-{seed}"
        if (run_dir / DONE).is_file():
            if read_json(run_dir / DONE) == _settings(row):
                yield run_dir
            else:
                print(f"{run_dir} was done with other settings and is left out")


def _hardware(results: Sequence[dict[str, Any]]) -> str:
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        model = next(
            (x.split(": ")[1] for x in cpuinfo.read_text(encoding="utf-8").splitlines() if x.startswith("model name")),
            model,
        )
    runs = [run for result in results for run in result["runs"]]
    versions: dict[str, str] = next((run["versions"] for run in runs if "versions" in run), {})
    threads = sorted({run["threads"] for run in runs if "threads" in run})
    seconds = sum(run["train_seconds"] for run in runs)
    told = [
        "Errors, mean ± standard deviation over n seeds from 0",
        f"training is the mean wall time of a run on {os.cpu_count()} cores of {model}"
        + (f", threads: {' or '.join(map(str, threads))}" if threads else "")
        + f", {seconds / 60:.0f} minutes for all",
        *[", ".join(f"{name} {version}" for name, version in versions.items())][: len(versions)],
    ]
    wall = results[-1].get("wall_seconds") if results else None
    return "; ".join(told) + "." + (f" All in one call: {wall / 60:.1f} minutes." if wall else "")


if __name__ == "__main__":
    try:
        jsonargparse.auto_cli(run)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
