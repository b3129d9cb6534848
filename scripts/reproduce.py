"""The paper's MNIST table: train, test and summarise its rows, several seeds each.

    python -m scripts.reproduce                              # the table's rows, under an hour on two cores
    python -m scripts.reproduce --rows '[distilled-300]'     # these rows and the teachers that they need
    python -m scripts.reproduce --group sweep                # another group: ensemble, sweep
    python -m scripts.reproduce --group tuning               # the choices that were made, on a validation split
    python -m scripts.reproduce --config my.yaml --seeds 5   # your own configuration, against its plain student

Runs go one after the other in one process. What is done is skipped and what was cut short goes on, so it can be
stopped and started at any time. Final runs train on all 60,000 images, have no validation split and report their last
epoch; the test set is read once per run. Choices are made by the tuning rows, which see validation images alone.
"""

import csv
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

import jsonargparse
import yaml
from rich.console import Console
from rich.table import Table

from kd_lightning.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint
from kd_lightning.cli import main
from kd_lightning.runs import write_json

TUNING_VAL_SIZE = 5000


class Row(NamedTuple):
    """A line of the table: one configuration, several seeds.

    Attributes:
        name: Folder of the runs, with the seed behind it.
        what: What it is, for people.
        config: Configuration below configs/mnist.
        flags: What differs from it.
        seeds: How many.
        paper: The paper's errors, None where it has none.
        needs: Row that must be done first, its teachers.
        teachers: How many of that row's seeds teach.
    """

    name: str
    what: str
    config: str
    flags: tuple[str, ...]
    seeds: int
    paper: int | None = None
    needs: str | None = None
    teachers: int = 1


def _options(**values: object) -> tuple[str, ...]:
    """Flags of the command line; two underscores stand for a point."""
    return tuple(text for name, value in values.items() for text in (f"--{name.replace('__', '.')}", str(value)))


JITTER = _options(data__augment="kd_lightning.Jitter")
AFFINE = _options(data__augment="kd_lightning.Affine")
# Large batches in bfloat16 with a larger step: three times the speed on processors that have it.
FAST = _options(
    data__batch_size=512,
    trainer__precision="bf16-mixed",
    model__optimizer="torch.optim.Adam",
    model__optimizer__lr=2e-3,
)
LONG = (*FAST, *_options(model__optimizer__lr=4e-3, trainer__max_epochs=100))
STRONG_TEACHER = (
    *AFFINE,
    *FAST,
    *_options(model__net__dropout_input=0.1, model__net__dropout_hidden=0.3, model__max_norm="null"),
)
SMALL = _options(model__student__hidden="[300,300]")
TAUGHT = _options(model__temperature=20, model__teacher_precision="bfloat16")


def _students(kind: str, what: str, config: str, flags: tuple[str, ...], *, seeds: int, **more: Any) -> list[Row]:
    papers = more.pop("papers", (None, None))
    return [
        Row(f"{kind}-800", f"{what}, 2x800", config, flags, seeds, papers[0], **more),
        Row(f"{kind}-300", f"{what}, 2x300", config, (*SMALL, *flags), seeds, papers[1], **more),
    ]


TABLE: list[Row] = [
    Row("teacher-jitter", "teacher 2x1200: dropout, weight limit, jitter, as in the paper", "teacher", FAST, 1, 67),
    Row("teacher", "teacher 2x1200: dropout, affine images", "teacher", STRONG_TEACHER, 1, None),
    *_students("plain", "plain", "student", (), seeds=5, papers=(146, None)),
    *_students("plain-long", "plain, schedule of the next rows", "student", LONG, seeds=3),
    *_students(
        "distilled",
        "distilled at T = 20 without jitter, from one teacher",
        "distill",
        (*LONG, *TAUGHT, *_options(model__soft_weight=0.9)),
        seeds=5,
        papers=(74, None),
        needs="teacher",
    ),
    *_students(
        "plain-jitter",
        "plain, jittered images, schedule of the next rows",
        "student",
        (*FAST, *JITTER, *_options(trainer__max_epochs=80)),
        seeds=3,
    ),
    *_students(
        "same-view",
        "distilled at T = 20, student and teacher on the same jittered images",
        "distill",
        (*FAST, *JITTER, *TAUGHT, *_options(trainer__max_epochs=80, model__soft_weight=0.9)),
        seeds=3,
        needs="teacher",
    ),
]


ENSEMBLE: list[Row] = _students(
    "ensemble",
    "distilled at T = 20 on jittered images, from ten teachers",
    "distill",
    (*FAST, *JITTER, *TAUGHT, *_options(trainer__max_epochs=80, model__soft_weight=1.0)),
    seeds=3,
    needs="teacher",
    teachers=10,
)

# Does the paper's claim hold: 300 units and more alike above T = 8, 30 units best at 2.5 to 4?
SWEEP: list[Row] = [
    Row(
        f"sweep-{width}-{temperature:g}",
        f"2x{width} at T = {temperature:g}",
        "distill",
        (
            *FAST,
            *_options(model__teacher_precision="bfloat16", model__temperature=temperature, model__soft_weight=1.0),
            *_options(model__student__hidden=f"[{width},{width}]", trainer__max_epochs=20),
        ),
        3,
        needs="teacher",
    )
    for width in (30, 300, 800)
    for temperature in (1, 2, 2.5, 4, 8, 12, 20, 40)
]


def _tried(kind: str, flags: tuple[str, ...], weight: float, rate: float, epochs: int) -> Row:
    settings = _options(model__soft_weight=weight, model__optimizer__lr=rate, trainer__max_epochs=epochs)
    return Row(
        f"{kind}-{weight}-{rate}-{epochs}",
        f"{kind}, soft_weight {weight}, step {rate}, {epochs} epochs",
        "distill",
        (*SMALL, *FAST, *TAUGHT, *flags, *settings),
        1,
        needs="teacher",
    )


# What the rows' settings were chosen from, each with one seed, by errors on 5,000 training images held out.
TUNING: list[Row] = [
    Row("teacher", "teacher, affine images", "teacher", STRONG_TEACHER, 1),
    *(_tried("distilled-300", (), weight, 2e-3, 40) for weight in (0.5, 0.9, 1.0)),
    *(_tried("distilled-300", (), 0.9, rate, 40) for rate in (1e-3, 4e-3)),
    *(_tried("distilled-300", (), weight, 4e-3, 100) for weight in (0.5, 0.9)),
    *(_tried("same-view-300", JITTER, weight, 2e-3, 80) for weight in (0.9, 1.0)),
    *(_tried("same-view-300", JITTER, weight, 4e-3, 80) for weight in (0.9, 1.0)),
]

GROUPS = {"table": TABLE, "ensemble": ENSEMBLE, "sweep": SWEEP, "tuning": TUNING}


def run(
    group: Literal["table", "ensemble", "sweep", "tuning"] = "table",
    rows: list[str] | None = None,
    config: str | None = None,
    seeds: int | None = None,
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
        data_dir: Where MNIST is, or is downloaded to.
        root: Folder of the runs.
        output: Folder of the summary: .md, .csv and .json.
    """
    if config is not None:
        table, name = own_rows(Path(config), seeds or 5), Path(config).stem
        root = f"{root}-own"
    else:
        table, name = GROUPS[group], f"mnist-{group}"
    tuning = config is None and group == "tuning"
    folder = Path(f"{root}-tuning" if tuning else root)
    for row, count in with_needs(table, rows, seeds):
        for seed in range(count):
            do(row, seed, folder, data_dir, tuning=tuning)
    results = [collect(row, folder, group, tuning=tuning) for row in table if any(_folders(row, folder))]
    write_summary(results, Path(output), name)


def own_rows(config: Path, seeds: int) -> list[Row]:
    """A configuration of the user's, and its plain student where it distills.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not config.is_file():
        raise FileNotFoundError(f"no configuration {config}")
    content = yaml.safe_load(config.read_text())
    own = [Row(config.stem, config.stem, str(config), (), seeds)]
    if str(content.get("model", {}).get("class_path", "")).endswith("DistillModule"):
        plain = _options(model__soft_weight=0.0, model__teachers="null")
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
        if row.needs is not None:
            teacher = known.get(row.needs) or next(row_ for row_ in TABLE if row_.name == row.needs)
            counts[teacher] = max(counts.get(teacher, 0), row.teachers)
    for row in chosen:
        counts[row] = max(counts.get(row, 0), seeds or row.seeds)
    return list(counts.items())


def do(row: Row, seed: int, folder: Path, data_dir: str, *, tuning: bool) -> None:
    """Train and test one run, as far as it is not done; end the program where that fails."""
    run_dir = folder / f"{row.name}-{seed}"
    done = run_dir / "row.json"
    config = row.config if row.config.endswith(".yaml") else f"configs/mnist/{row.config}.yaml"
    fit = ["fit", "--config", config, "--run_dir", str(run_dir), "--seed_everything", str(seed), "--ckpt_path", "last"]
    if config != row.config:
        fit += ["--data.data_dir", data_dir, "--data.val_size", str(TUNING_VAL_SIZE if tuning else 0)]
    if row.needs:
        fit += ["--model.teachers", json.dumps([str(folder / f"{row.needs}-{n}") for n in range(row.teachers)])]
        fit += ["--model.store.folder", str(folder / "soft_targets")]
    settings = {"config": yaml.safe_load(Path(config).read_text()), "flags": list(row.flags)}
    if done.is_file():
        if json.loads(done.read_text()) != settings:
            raise ValueError(f"{run_dir} was done with other settings; delete it, or choose another --root")
        return
    commands = [[*fit, *row.flags]]
    if not tuning:
        commands.append(["test", "--ckpt_path", str(run_dir / CHECKPOINT_DIR / LAST)])
    for command in commands:
        print(f"\n$ python -m kd_lightning {shlex.join(command)}", flush=True)
        code = main(command)
        if code:
            sys.exit(code)
    write_json(done, settings)


def collect(row: Row, folder: Path, group: str, *, tuning: bool) -> dict[str, Any]:
    """What the runs of a row measured."""
    runs: list[dict[str, Any]] = []
    for run_dir in _folders(row, folder):
        if tuning:
            record = read_checkpoint(run_dir / CHECKPOINT_DIR / LAST)[RECORD_KEY]
            errors = round(TUNING_VAL_SIZE * (1 - record["validation"]["val/accuracy"]))
            runs.append({"run": run_dir.name, "errors": errors, "train_seconds": record["train_seconds"]})
        else:
            metrics = json.loads((run_dir / "metrics.json").read_text())
            runs.append({"run": run_dir.name, "errors": metrics["test"]["errors"], **metrics})
    errors = [each["errors"] for each in runs]
    return {
        "row": row.name,
        "what": row.what,
        "paper": row.paper,
        "n": len(runs),
        "mean": mean(errors),
        "sd": stdev(errors) if len(errors) > 1 else None,
        "errors": errors,
        "train_seconds": mean(each["train_seconds"] for each in runs),
        "teacher_errors": runs[0].get("test", {}).get("teacher_errors"),
        "command": "python -m scripts.reproduce "
        + (f"--config {row.config}" if row.config.endswith(".yaml") else f"--group {group} --rows '[{row.name}]'"),
        "flags": shlex.join(row.flags),
        "runs": runs,
    }


def write_summary(results: Sequence[dict[str, Any]], output: Path, name: str) -> None:
    """Print the table, and write it as Markdown, CSV and JSON."""
    output.mkdir(parents=True, exist_ok=True)
    header = ["row", "paper", "errors", "n", "training", "command"]
    lines = [
        [
            result["what"],
            str(result["paper"] or "–"),
            f"{result['mean']:.1f}" + (f" ± {result['sd']:.1f}" if result["sd"] is not None else ""),
            str(result["n"]),
            f"{result['train_seconds']:.0f} s",
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
    (output / f"{name}.md").write_text(f"{text}\n{_hardware(results)}\n")
    (output / f"{name}.json").write_text(json.dumps(list(results), indent=2) + "\n")
    with (output / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ["row", "what", "paper", "n", "mean", "sd", "errors", "train_seconds", "command", "flags"]
        writer.writerow(names)
        writer.writerows([result[column] for column in names] for result in results)
    print(f"written: {output / name}.md, .csv and .json")


def _folders(row: Row, folder: Path) -> Iterator[Path]:
    """The finished runs of a row."""
    for seed in range(1000):
        run_dir = folder / f"{row.name}-{seed}"
        if not run_dir.is_dir():
            return
        if (run_dir / "row.json").is_file():
            yield run_dir


def _hardware(results: Sequence[dict[str, Any]]) -> str:
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        model = next((x.split(": ")[1] for x in cpuinfo.read_text().splitlines() if x.startswith("model name")), model)
    versions: dict[str, str] = next(
        (run["versions"] for result in results for run in result["runs"] if "versions" in run), {}
    )
    seconds = sum(result["train_seconds"] * result["n"] for result in results)
    return (
        f"Errors, mean ± standard deviation over n seeds from 0; training is the mean wall time of a run, "
        f"{seconds / 60:.0f} minutes for all, on {os.cpu_count()} cores of {model}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )


if __name__ == "__main__":
    try:
        jsonargparse.auto_cli(run)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
