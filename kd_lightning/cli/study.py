"""The subcommand `study`: train, test and compare the rows of a study, each over several seeds.

Finished runs are skipped and interrupted runs resume, so a study can be stopped and started at any time. Several calls
at once share the runs, and a call may start further processes that do so. A process does one run after the other, since
importing torch and Lightning takes seconds.
"""

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from kd_lightning.cli.arguments import PROG
from kd_lightning.cli.command_line import main
from kd_lightning.cli.study_console import StudyConsole, quiet
from kd_lightning.cli.study_helper import Helpers, helpers
from kd_lightning.cli.study_parser import study_parser
from kd_lightning.modules.precision import has_bfloat16_instructions
from kd_lightning.reports.page import compare_runs, write_report
from kd_lightning.reports.run_folders import read_run
from kd_lightning.reports.studies import (
    DONE_FILE,
    collect,
    finished_runs,
    is_done,
    measured,
    print_summary,
    write_summary,
)
from kd_lightning.reports.study_file import read_study
from kd_lightning.reports.study_row import Study, StudyRow
from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST
from kd_lightning.runs.files import write_json
from kd_lightning.runs.locks import claimed, locked
from kd_lightning.runs.texts import say

LOCKS = ".locks"  # in a study's folder: a file per run
WAIT_SECONDS = 1.0  # between two checks of what other processes have finished

Job = tuple[StudyRow, int]  # a row and a seed


class Options(NamedTuple):
    """The options of the command line, in addition to the study.

    Attributes:
        root: Folder of all studies' runs.
        data_dir: Folder of the data, None to use the one in the configurations.
        verbose: Whether the runs print all their output.
    """

    root: Path
    data_dir: str | None
    verbose: bool


def run_study(arguments: Sequence[str]) -> None:
    """Run the unfinished runs of a study, and write its table.

    Args:
        arguments: The study file, or a configuration, and options.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the study has an error, or was run with other settings.
        SystemExit: If a run fails or is stopped, with its exit code.
    """
    started = time.monotonic()
    given = study_parser().parse_args(list(arguments))
    if given.threads is not None or given.processes > 1:
        torch.set_num_threads(given.threads or max(1, torch.get_num_threads() // given.processes))
    options = Options(Path(given.root), given.data_dir, given.verbose)
    study = read_study(Path(given.study), verdict=given.verdict)
    if given.float32:
        study = study.in_float32()
    elif not torch.cuda.is_available() and not has_bfloat16_instructions() and study.in_float32() != study:
        say("rows ask for bfloat16, for which this processor has no instructions: it is faster with --float32 true")
    flags = {
        "verdict": "true" if given.verdict else None,
        "float32": "true" if given.float32 else None,
        "seeds": given.seeds,
        "threads": given.threads,
        "processes": given.processes if given.processes > 1 else None,
    }
    command = f"{PROG} study {given.study}" + "".join(f" --{name} {value}" for name, value in flags.items() if value)
    jobs = planned(study, given.rows, given.seeds)
    todo = [job for job in jobs if not _is_done(job, options)]
    if given.processes > 1:
        _check_locks(options.root / study.name / LOCKS)
    with StudyConsole(study.name, [f"{row.name}-{seed}" for row, seed in jobs], len(todo), options.verbose) as console:
        for row in {row.folder(options.root, 0): row for row, _ in todo}.values():
            check_row(row, options)
        count = min(given.processes, len(todo)) - 1
        with helpers(count, study.name, todo, options, torch.get_num_threads()) as started_helpers:
            done = _do_all(todo, options, console, started_helpers) + started_helpers.wait_and_count()
    lines = collect(study, options.root, settings, command)
    output = Path(given.output) if given.output else options.root / study.name
    if given.verdict:
        _give_verdict(lines, study.name, options.root, output)
    else:
        print_summary(lines, study.name)
    write_summary(lines, output, study.name, time.monotonic() - started if done == len(jobs) else None)
    with_report = given.report and study.rows[0].measure == "test"
    for finding in _write_report(study, options.root, output) if with_report else ():
        say(finding)
    if given.verdict:
        say(f"written: {output / 'verdict'}.md, .json and .png")
    say(f"written: {output / study.name}.md, .csv and .json")
    if with_report:
        say(f"pictures: open {options.root / study.name / 'report.html'}")


def run_as_helper(study: str, jobs: Sequence[Job], options: Options, threads: int) -> int:
    """Do runs in a process beside the one that the user started, until all are done; how many this one did."""
    torch.set_num_threads(threads)
    names = [f"{row.name}-{seed}" for row, seed in jobs]
    with StudyConsole(study, names, len(jobs), verbose=True) as console:  # without a bar
        return _do_all(jobs, options._replace(verbose=False), console)


def planned(study: Study, names: Sequence[str] | None = None, seeds: int | None = None) -> list[Job]:
    """The runs of a study, each after those that teach it.

    Args:
        study: The study.
        names: Rows that are wanted; all by default. Their teachers come with them.
        seeds: How many seeds of each, by default the number in the row; of teachers the number that teach.

    Raises:
        ValueError: If there is no such row.
    """
    row_names = [row.name for row in study.rows]
    unknown = [name for name in names or () if name not in row_names]
    if unknown:
        raise ValueError(f"no row {', '.join(unknown)} in {study.name}; expected some of {', '.join(row_names)}")
    counts: dict[tuple[str, str], tuple[StudyRow, int]] = {}

    def need(row: StudyRow, count: int) -> None:
        for teacher, taught_by in row.teachers:
            need(teacher, count if taught_by is None else taught_by)
        _, before = counts.get((row.study, row.name), (row, 0))
        counts[row.study, row.name] = row, max(before, count)

    for row in study.rows:
        if not names or row.name in names:
            need(row, seeds or row.seeds)
    return [(row, seed) for row, count in counts.values() for seed in range(count)]


def settings(row: StudyRow) -> dict[str, Any]:
    """The settings of a row's runs. They hold the number of threads, which changes the last bits of sums."""
    return {**row.settings(), "threads": torch.get_num_threads()}


def _give_verdict(lines: Sequence[dict[str, Any]], name: str, root: Path, output: Path) -> None:
    from kd_lightning.reports import verdict_files  # scipy takes half a second to import

    verdict = verdict_files.verdict_of(lines, root, name)
    verdict_files.print_verdict(verdict, lines, name)
    verdict_files.write_verdict(verdict, lines, output)


def _check_locks(folder: Path) -> None:
    with locked(folder / "study") as has_locks:
        if not has_locks:
            raise ValueError(
                f"--processes needs file locks, which {folder} can't have (Lustre and NFS may be mounted without); "
                "choose another --root, or --processes 1"
            )


def _is_done(job: Job, options: Options) -> bool:
    row, seed = job
    return is_done(row.folder(options.root, seed), settings(row))


def _do_all(
    jobs: Sequence[Job], options: Options, console: StudyConsole, started_helpers: Helpers | None = None
) -> int:
    """Run the jobs, each once its teachers are finished. Helpers, and other calls on the same folder, take some.

    Returns:
        How many this process has done.
    """
    left, done = list(jobs), 0
    while left:
        if started_helpers is not None:
            started_helpers.check()
        for job in left:
            row, seed = job
            run = row.folder(options.root, seed)
            teachers_done = all((teacher / DONE_FILE).is_file() for teacher in row.teacher_folders(options.root, seed))
            with claimed(run.parent / LOCKS / run.name) as free:
                if free and teachers_done and not _is_done(job, options):
                    console.begin(run.name)
                    _do(job, options)
                    done += 1
                    break
        else:
            console.wait()
            time.sleep(WAIT_SECONDS)
        for job in [job for job in left if _is_done(job, options)]:
            left.remove(job)
            row, seed = job
            console.finished(row.name, seed, measured(row.folder(options.root, seed), row))
    return done


def _do(job: Job, options: Options) -> None:
    """Train and test one run, or resume it; end the program if that fails."""
    row, seed = job
    run = row.folder(options.root, seed)
    commands = [[*fit_command(row, options, seed), "--run_dir", str(run), "--seed_everything", str(seed)]]
    commands[0] += ["--ckpt_path", "last"]
    if row.measure == "test":
        commands.append(["test", "--ckpt_path", str(run / CHECKPOINT_DIR / LAST)])
    for command in commands:
        code = _run(command, run.name, verbose=options.verbose)
        if code:
            sys.exit(code)
    write_json(run / DONE_FILE, settings(row))


def fit_command(row: StudyRow, options: Options, seed: int = 0) -> list[str]:
    """Arguments of `fit` of a row's run, but for what is its own: folder, seed, checkpoint."""
    command = ["fit", *row.flags()]
    if options.data_dir is not None:
        command += ["--data.data_dir", options.data_dir]
    if row.teachers:
        # The weights that the teacher's own line shows.
        teachers = [str(run / CHECKPOINT_DIR / LAST) for run in row.teacher_folders(options.root, seed)]
        command += ["--model.teachers", json.dumps(teachers)]
        command += ["--model.store.folder", str(options.root / "soft_targets")]
    return command


def _run(command: list[str], name: str, *, verbose: bool) -> int:
    """Run a command line in this process; its exit code. Its last line names the run."""
    if verbose:
        print(f"\n$ {PROG} {shlex.join(command)}", flush=True)
        return main(command)
    errors = io.StringIO()
    try:
        with quiet(), redirect_stderr(errors):
            return main([*command, "--trainer.enable_progress_bar", "false"])
    finally:
        text = errors.getvalue().replace("error: ", f"error: {name}: ", 1)
        text = text.replace("stopped by ", f"stopped in {name} by ", 1)
        say(text, sys.stderr, end="")


def check_row(row: StudyRow, options: Options) -> None:
    """Check before the first run that a row's configuration is valid and that this process can run it.

    Raises:
        ValueError: If not.
    """
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = main([*fit_command(row, options), "--print_config"])
    if code:
        reason = errors.getvalue().strip().splitlines()[-1].removeprefix("error: ")
        raise ValueError(f"row {row.name}: {reason}")
    config = yaml.safe_load(output.getvalue())
    processes = process_count(config["trainer"])
    if processes > 1:
        raise ValueError(
            f"row {row.name}: expected a run in one process, got {processes}; set trainer.devices to 1 "
            "and start a call per device, or take a strategy that forks"
        )
    data = config["data"].get("init_args", {})
    size = data.get("val_size")
    if row.measure == "validation" and not (isinstance(size, int) and size > 0) and not data.get("val_speaker"):
        raise ValueError(f"row {row.name}: measure validation needs data.val_size > 0, got {size}")


def process_count(trainer: dict[str, Any]) -> int:
    """How many processes a run needs that Lightning would start by this program's own command line."""
    if any(word in str(trainer["strategy"]) for word in ("fork", "spawn")):
        return 1
    devices = trainer["devices"]
    if str(devices) in {"auto", "-1"}:
        on_gpu = str(trainer["accelerator"]) in {"auto", "gpu", "cuda"}
        devices = max(1, torch.cuda.device_count() if on_gpu else 1)
    count = len(devices) if isinstance(devices, list) else int(devices)
    return max(count * int(trainer["num_nodes"]), int(os.environ.get("WORLD_SIZE", "1")))


def _write_report(study: Study, root: Path, output: Path) -> list[str]:
    """Write the report of all finished runs of a study, whose verdict lies in the output; the findings about them."""
    runs = dict.fromkeys(run for row in study.rows for run in finished_runs(row, root, settings(row)))
    compared = compare_runs([read_run(run) for run in runs])
    write_report(compared, root / study.name, verdict=output)
    return compared.findings
