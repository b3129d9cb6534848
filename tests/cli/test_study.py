"""Studies: what runs when, what is skipped, resumed, refused and shown; small whole ones at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.cli import study as study_module
from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import Options, check_row, fit_command, planned, process_count, run_study
from kd_lightning.reports.curves import read_curves
from kd_lightning.reports.study_file import read_study
from kd_lightning.reports.study_row import StudyRow
from kd_lightning.runs.locks import claimed
from tests.cli.small_study import small_study
from tests.reports import made_runs

CONFIGS = Path(__file__).parents[2] / "configs"
STUDY = """
name: tiny
configs: [base.yaml]
seeds: 2
rows:
  - {name: distilled, teachers: {teacher: 3}}
  - {name: plain, paper: 146}
  - {name: teacher, seeds: 1}
"""


class FakeRuns:
    """Stands in for `main`: fits leave a folder, tests an error count; notes what was called.

    Args:
        fails: Exit code of a fit, by its run's name.

    Attributes:
        models: What a run's configuration says of its module, by its row.
        errors: Test errors in place of the usual ones, by the run's row.
    """

    def __init__(self, fails: dict[str, int] | None = None) -> None:
        self.fails = fails or {}
        self.models: dict[str, Any] = {}
        self.errors: dict[str, int] = {}
        self.calls: list[str] = []
        self.commands: list[Sequence[str]] = []
        self.resolved: dict[str, Any] = {
            "trainer": {"strategy": "auto", "devices": 1, "accelerator": "cpu", "num_nodes": 1},
            "data": {"class_path": "x", "init_args": {"val_size": 400}},
        }

    def __call__(self, command: Sequence[str]) -> int:
        if "--print_config" in command:
            print(yaml.safe_dump(self.resolved))
            return 0
        self.commands.append(command)
        if command[0] == "fit":
            run = Path(command[command.index("--run_dir") + 1])
            self.calls.append(run.name)
            run.mkdir(parents=True, exist_ok=True)
            config = {"seed_everything": 0, "model": self.models.get(run.name.rpartition("-")[0])}
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            if run.name in self.fails:
                print(f"error: {run.name} has bad luck", file=sys.stderr)
            print("many lines")
            return self.fails.get(run.name, 0)
        run = Path(command[command.index("--ckpt_path") + 1]).parents[1]
        errors = self.errors.get(run.name.rpartition("-")[0], 30 + len(self.calls))
        record = {
            "test": {"errors": errors, "examples": 1000, "teacher_errors": 20},
            "train_seconds": 2.0,
        }
        (run / "metrics.json").write_text(json.dumps(record))
        return 0


def study(*arguments: str) -> int:
    """What `main` does with a study, without its rest: the exit code."""
    try:
        run_study(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns()
    monkeypatch.setattr(study_module, "main", fake)
    monkeypatch.setattr(study_module, "WAIT_SECONDS", 0.01)
    Path("base.yaml").write_text("trainer: {max_epochs: 2}\n")
    Path("study.yaml").write_text(STUDY)
    return fake


def test_teachers_come_first_and_a_line_per_run_is_shown(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("study.yaml") == 0
    assert runs.calls == ["teacher-0", "teacher-1", "teacher-2", "distilled-0", "distilled-1", "plain-0", "plain-1"]
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "tiny: 7 runs"
    assert lines[1].split() == ["teacher", "seed", "0", "31", "errors", "2.0", "s"]
    assert len(lines) == 1 + 7 + 4 + 4 + 1 + 2, shown.out  # runs, the table and its frame, the files
    assert "many lines" not in shown.out
    assert lines[-2:] == ["written: runs/tiny/tiny.md, .csv and .json", "pictures: open runs/tiny/report.html"]
    assert Path("runs/tiny/report.html").is_file()
    fit = runs.commands[runs.calls.index("distilled-1") * 2]
    assert fit[:3] == ["fit", "--config", "base.yaml"]
    assert json.loads(fit[fit.index("--model.teachers") + 1])[2] == "runs/tiny/teacher-2/checkpoints/last.ckpt"
    assert fit[fit.index("--seed_everything") + 1] == "1"
    assert fit[fit.index("--ckpt_path") + 1] == "last"
    table = Path("runs/tiny/tiny.md").read_text().splitlines()
    assert table[0] == "`python -m kd_lightning study study.yaml`"
    assert table[2] == "| --rows | row | paper | errors | n | training |"
    ensemble = "|  | these 3 teachers together | – | 20 | 1 | – |"
    assert table[4] == ensemble
    assert table[6].startswith("| `plain` | plain | 146 | 36.5 ± 0.7 | 2 | 2.0 s |")


def test_what_is_odd_about_the_results_is_said(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    runs.models = {"plain": made_runs.student(0.0), "distilled": made_runs.student(0.9)}
    runs.errors = {"plain": 30, "distilled": 40}
    assert study("study.yaml", "--rows", "plain", "distilled", "--seeds", "1") == 0
    *_, frame, finding, written, pictures = capsys.readouterr().out.splitlines()
    assert "─┘" in frame
    assert finding.startswith("distilled-0 makes more errors (40) than the plain student, plain-0 (30)")
    assert written == "written: runs/tiny/tiny.md, .csv and .json"
    assert pictures == "pictures: open runs/tiny/report.html"
    assert finding in Path("runs/tiny/report.md").read_text()


def test_what_is_done_is_skipped_and_counted_in_the_table(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("study.yaml", "--seeds", "1", "--rows", "plain", "--report", "false") == 0
    assert runs.calls == ["plain-0"]
    assert not Path("runs/tiny/report.html").exists()
    capsys.readouterr()
    assert study("study.yaml", "--rows", "plain", "teacher", "--report", "false") == 0
    assert runs.calls == ["plain-0", "plain-1", "teacher-0"]
    assert capsys.readouterr().out.splitlines()[0] == "tiny: 3 runs, 1 done before"
    assert study("study.yaml", "--rows", "teacher", "--report", "false") == 0
    assert runs.calls == ["plain-0", "plain-1", "teacher-0"]
    (teacher, plain) = sorted(json.loads(Path("runs/tiny/tiny.json").read_text()), key=lambda line: line["n"])
    assert (teacher["row"], teacher["n"], plain["row"], plain["n"]) == ("teacher", 1, "plain", 2)


@pytest.mark.parametrize("code", [1, 143, 130, 75])
def test_a_run_that_fails_or_is_stopped_ends_the_study_with_its_code(
    runs: FakeRuns, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.fails = {"plain-0": code}
    assert study("study.yaml", "--rows", "teacher", "plain", "--report", "false") == code
    assert runs.calls == ["plain-0"]
    assert capsys.readouterr().err == "error: plain-0: plain-0 has bad luck\n"
    runs.fails = {}
    assert study("study.yaml", "--rows", "teacher", "plain", "--report", "false") == 0
    assert runs.calls == ["plain-0", "plain-0", "plain-1", "teacher-0"]


def test_runs_done_with_other_settings_are_refused(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--report", "false", "--seeds", "1"]
    assert study("study.yaml", *quick, "--rows", "plain") == 0
    Path("base.yaml").write_text("trainer: {max_epochs: 4}\n")
    with pytest.raises(
        ValueError, match=r"plain-0 was done with .*\(trainer.max_epochs: the run has 2, asked for 4\); dele"
    ):
        study("study.yaml", *quick, "--rows", "plain")
    assert study("study.yaml", *quick, "--rows", "teacher") == 0
    shown = capsys.readouterr().out
    assert "runs/tiny/plain-0 was done with other settings" in shown
    assert "is left out" in shown
    Path("study.yaml").write_text(STUDY.replace("{name: plain", "{name: plain, set: {trainer.max_epochs: 2}"))
    assert study("study.yaml", *quick, "--rows", "plain") == 0
    assert runs.calls == ["plain-0", "teacher-0"]


def test_another_number_of_threads_says_how_to_go_on(
    runs: FakeRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("study.yaml", "--report", "false") == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    before = json.loads(Path("runs/tiny/plain-0/row.json").read_text())["threads"]
    with pytest.raises(ValueError, match=f"threads: the run has {before}, asked for 17; take --threads {before}"):
        run_study(["study.yaml", "--report", "false"])


def test_a_row_whose_teacher_changed_is_refused(runs: FakeRuns) -> None:
    assert study("study.yaml", "--report", "false", "--rows", "distilled") == 0
    Path("study.yaml").write_text(STUDY.replace("teacher: 3", "teacher: 2"))
    with pytest.raises(ValueError, match=r"\(teachers.teacher.seeds: the run has 3, asked for 2\)"):
        study("study.yaml", "--report", "false", "--rows", "distilled")


def test_unknown_rows_and_options_are_one_line(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["study.yaml", "--rows", "plian"], "no row plian in tiny; expected some of distilled, plain, teacher"),
        (["nowhere.yaml"], "no study or configuration nowhere.yaml"),
        (["study.yaml", "--seeds", "0"], "seeds"),
        (["study.yaml", "--sedes", "2"], "--sedes"),
    ):
        assert main(["study", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error
    assert not runs.calls


def test_a_row_that_the_parser_refuses_is_found_before_anything_trains(
    runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "main", main)
    Path("base.yaml").write_text((CONFIGS / "quickstart" / "student.yaml").read_text())
    Path("study.yaml").write_text("{configs: [base.yaml], rows: [{name: a}, {name: b, set: {data.bach_size: 3}}]}")
    with pytest.raises(ValueError, match="row b: "):
        study("study.yaml")
    assert not list(Path("runs").rglob("config.yaml"))


def test_validation_studies_are_not_tested(
    runs: FakeRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"validation": {"val/accuracy": 0.93}, "train_seconds": 3.0, "config": {"data": runs.resolved["data"]}}
    monkeypatch.setattr("kd_lightning.reports.studies.read_checkpoint", lambda path: {"kd_lightning": record})
    Path("study.yaml").write_text(f"measure: validation{STUDY}")
    assert study("study.yaml", "--rows", "plain") == 0
    assert [command[0] for command in runs.commands] == ["fit", "fit"]
    shown = capsys.readouterr().out
    assert "tiny: errors of 400 validation examples" in shown
    assert "report.html" not in shown
    (line,) = json.loads(Path("runs/tiny/tiny.json").read_text())
    assert line["errors"] == [28, 28]
    runs.resolved["data"]["init_args"]["val_size"] = 0
    with pytest.raises(ValueError, match=r"row plain: measure validation needs data.val_size > 0, got 0"):
        study("study.yaml", "--rows", "plain", "--root", "other")
    runs.resolved["data"]["init_args"]["val_batch_size"] = 64  # says nothing of what validates
    with pytest.raises(ValueError, match=r"row plain: measure validation needs data.val_size > 0, got 0"):
        study("study.yaml", "--rows", "plain", "--root", "other")
    runs.resolved["data"]["init_args"]["val_speaker"] = "theo"
    assert study("study.yaml", "--rows", "plain", "--root", "other") == 0


def test_runs_of_several_processes_are_refused(runs: FakeRuns) -> None:
    runs.resolved["trainer"]["devices"] = 2
    with pytest.raises(ValueError, match=r"row plain: expected a run in one process, got 2; set trainer.devices to 1"):
        study("study.yaml", "--rows", "plain")
    trainer = {"strategy": "auto", "devices": "auto", "accelerator": "cpu", "num_nodes": 1}
    for changed, count in (
        ({}, 1),
        ({"devices": "3"}, 3),
        ({"devices": [0, 1]}, 2),
        ({"num_nodes": 4}, 4),
        ({"devices": 2, "strategy": "ddp_fork"}, 1),
    ):
        assert process_count(trainer | changed) == count


def test_a_study_waits_for_teachers_that_another_call_trains(
    runs: FakeRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("study.yaml", "--rows", "teacher", "--seeds", "3", "--report", "false") == 0
    done = Path("runs/tiny/teacher-1/row.json")
    hidden = done.rename("row.json")
    with ExitStack() as other_call:
        assert other_call.enter_context(claimed(Path("runs/tiny/.locks/teacher-1")))

        def finish(seconds: float) -> None:
            hidden.rename(done)
            other_call.close()

        monkeypatch.setattr(time, "sleep", finish)
        assert study("study.yaml", "--rows", "distilled", "--seeds", "1", "--report", "false") == 0
    shown = capsys.readouterr().out.splitlines()
    (trained,) = (place for place, line in enumerate(shown) if line.startswith("distilled"))
    assert shown.index("waiting for runs of another process") == trained - 2  # then the teacher's line
    assert "All in one call" not in Path("runs/tiny/tiny.md").read_text()
    assert runs.calls == ["teacher-0", "teacher-1", "teacher-2", "distilled-0"]


def _taken(runs: FakeRuns, option: str) -> dict[str, str]:
    """The values that fits got for an option, by run."""
    fits = zip(runs.calls, runs.commands[::2], strict=True)
    return {run: command[command.index(option) + 1] for run, command in fits if option in command}


def test_float32_takes_the_place_of_bfloat16(runs: FakeRuns) -> None:
    Path("base.yaml").write_text(
        "trainer: {precision: bf16-mixed}\nmodel: {init_args: {teacher_precision: bfloat16}}\n"
    )
    assert study("study.yaml", "--float32", "true", "--report", "false") == 0
    assert _taken(runs, "--trainer.precision") == dict.fromkeys(runs.calls, "32-true")
    assert _taken(runs, "--model.teacher_precision") == dict.fromkeys(runs.calls, "float32")
    assert [path.name for path in Path("runs").iterdir()] == ["tiny-float32"]
    table = Path("runs/tiny-float32/tiny-float32.md").read_text()
    assert table.startswith("`python -m kd_lightning study study.yaml --float32 true`")
    assert "| `plain` | plain, in float32 |" in table


def test_float32_changes_only_rows_that_ask_for_bfloat16_or_learn_from_such_a_row(runs: FakeRuns) -> None:
    Path("study.yaml").write_text(STUDY.replace("paper: 146", "set: {trainer.precision: bf16-true}"))
    assert study("study.yaml", "--float32", "true", "--report", "false") == 0
    assert _taken(runs, "--trainer.precision") == {"plain-0": "32-true", "plain-1": "32-true"}
    assert sorted(path.name for path in Path("runs/tiny").glob("*-[0-9]")) == sorted(runs.calls[:5])
    Path("study.yaml").write_text(STUDY.replace("seeds: 1", "seeds: 1, set: {trainer.precision: bf16}"))
    in_float32 = read_study(Path("study.yaml")).in_float32()
    assert in_float32.in_float32() == in_float32
    distilled, plain, teacher = in_float32.rows
    assert (distilled.study, distilled.what, plain.study) == ("tiny-float32", "distilled", "tiny")
    assert distilled.teachers == ((teacher, 3),)
    assert teacher.folder(Path("runs"), 0) == Path("runs/tiny-float32/teacher-0")


@pytest.mark.parametrize(
    ("precision", "instructions", "told"), [("bf16", False, 1), ("bf16", True, 0), ("32", False, 0)]
)
def test_a_processor_without_bfloat16_is_told_of_float32(
    precision: str,
    instructions: bool,
    told: int,
    runs: FakeRuns,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(study_module, "has_bfloat16_instructions", lambda: instructions)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("base.yaml").write_text(f"trainer: {{precision: '{precision}'}}\n")
    for flags in ((), ("--float32", "true")):
        assert study("study.yaml", "--rows", "plain", "--seeds", "1", "--report", "false", *flags) == 0
    assert capsys.readouterr().out.count("it is faster with --float32 true") == told


def test_several_processes_need_locks(runs: FakeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("kd_lightning.runs.locks.fcntl.flock", no_locks)
    with pytest.raises(ValueError, match=r"--processes needs file locks, which runs/tiny/\.locks can't have"):
        run_study(["study.yaml", "--processes", "2"])
    assert runs.calls == []


def test_a_claimed_run_is_left_to_the_other_call() -> None:
    with claimed(Path("deep/lock")) as first, claimed(Path("deep/lock")) as second:
        assert (first, second) == (True, False)
    with claimed(Path("deep/lock")) as again:
        assert again


def test_teachers_of_teachers_come_first() -> None:
    strong = read_study(CONFIGS / "mnist" / "strong.yaml")
    jobs = [(row.name, seed) for row, seed in planned(strong, ["chain-300"], seeds=2)]
    assert [f"{name}-{seed}" for name, seed in jobs] == (
        ["conv-0", "conv-1", "conv-elastic-0", "conv-elastic-1", "strong-1200-0", "chain-300-0", "chain-300-1"]
    )
    sweep = planned(read_study(CONFIGS / "mnist" / "sweep.yaml"), ["sweep-30-1"])
    assert [(row.study, row.name, seed) for row, seed in sweep] == [
        ("mnist-table", "best-teacher", 0),
        *(("mnist-sweep", "sweep-30-1", seed) for seed in range(3)),
    ]
    everything = planned(read_study(CONFIGS / "mnist" / "table.yaml"))
    assert len(everything) == sum(row.seeds for row in read_study(CONFIGS / "mnist" / "table.yaml").rows)


def test_a_teacher_of_each_seed_teaches_the_run_with_that_seed(runs: FakeRuns) -> None:
    Path("study.yaml").write_text("""
configs: [base.yaml]
seeds: 2
rows: [{name: student, teachers: {big: each}}, {name: big}]
""")
    names = [f"{row.name}-{seed}" for row, seed in planned(read_study(Path("study.yaml")), ["student"])]
    assert names == ["big-0", "big-1", "student-0", "student-1"]
    assert study("study.yaml", "--rows", "student", "--report", "false") == 0
    taught = [call[call.index("--model.teachers") + 1] for call in runs.commands if "--model.teachers" in call]
    assert taught == [f'["runs/study/big-{seed}/checkpoints/last.ckpt"]' for seed in range(2)]


def test_the_quickstart_shows_about_sixty_lines(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    script = (CONFIGS.parent / "scripts" / "quickstart.sh").read_text()
    for arguments in re.findall(r"-m kd_lightning study (.*)", script):
        assert study(*arguments.replace("configs/", f"{CONFIGS}/").split()) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(runs.calls) == 15
    assert len(shown) <= 60
    assert shown[-1] == "pictures: open runs/quickstart/report.html"


class SignalAt(Callback):
    """Sends SIGTERM to this process at a step.

    Args:
        step: Of the optimizer.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_a_stopped_study_goes_on_within_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    stop = [{"class_path": "tests.cli.test_study.SignalAt", "init_args": {"step": 7}}]
    Path("study.yaml").write_text(yaml.safe_dump(small_study(**{"trainer.callbacks": stop})))
    assert main(["study", "study.yaml", "--rows", "distilled", "--report", "false"]) == 143
    shown = capsys.readouterr()
    assert shown.err == "stopped in distilled-0 by SIGTERM\n"
    assert [line.split()[:3] for line in shown.out.splitlines()[1:]] == [["teacher", "seed", "0"]]
    before = {run: (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns for run in Path("runs/small").glob("*-[0-9]")}
    assert not Path("runs/small/distilled-0/metrics.json").exists()
    Path("study.yaml").write_text(yaml.safe_dump(small_study()))
    assert study("study.yaml", "--rows", "distilled", "--report", "false") == 0
    after = {run: (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns for run in Path("runs/small").glob("*-[0-9]")}
    assert [run.name for run in after if after[run] != before[run]] == ["distilled-0"]
    metrics = json.loads(Path("runs/small/distilled-0/metrics.json").read_text())
    assert (metrics["steps"], metrics["checkpoint"], metrics["teachers"]) == (29, "last.ckpt", 1)
    first_steps = read_curves(Path("runs/small/distilled-0")).scalars["train/loss"][0]
    assert first_steps == sorted(set(first_steps))  # resumed, not begun again
    lines = {line["row"]: line for line in json.loads(Path("runs/small/small.json").read_text())}
    assert lines["teacher"]["errors"] == [metrics["test"]["teacher_errors"]]  # the weights that taught were tested
    assert lines["distilled"]["errors"] == [metrics["test"]["errors"]]


def _start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "kd_lightning", "study", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONFIGS.parent)},
    )


def _check_that_nine_runs_were_done_once() -> None:
    # A run that two had done would have been resumed by the second, whose event file would lie next to the first's.
    counts = {run.name: len(list(run.glob("events.out.tfevents.*"))) for run in Path("runs/small").glob("*-[0-9]")}
    assert len(counts) == 9
    assert set(counts.values()) == {2}, counts  # training and test


@pytest.mark.slow
def test_processes_of_one_call_share_its_runs_and_give_the_same_numbers() -> None:
    Path("study.yaml").write_text(yaml.safe_dump(small_study() | {"seeds": 3}))
    call = _start("study.yaml", "--processes", "2", "--threads", "1", "--report", "false")
    out, err = call.communicate(timeout=200)
    assert (call.returncode, err) == (0, "")
    assert out.count(" seed ") == 9
    _check_that_nine_runs_were_done_once()
    assert len({lock.read_text() for lock in Path("runs/small").glob("*/.lock")}) == 2  # the processes that trained
    table = Path("runs/small/small.md").read_text()
    assert table.startswith("`python -m kd_lightning study study.yaml --threads 1 --processes 2`")
    assert "All in one call" in table
    alone = _start("study.yaml", "--threads", "1", "--root", "alone", "--report", "false")
    alone.communicate(timeout=200)
    two, one = (json.loads(Path(f"{root}/small/small.json").read_text()) for root in ("runs", "alone"))
    assert [line["errors"] for line in two] == [line["errors"] for line in one]


def _two_processes_that_train() -> tuple["subprocess.Popen[str]", list[Path]]:
    """A call whose two processes are within their runs, and the runs' folders."""
    small = small_study()
    long = small["set"] | {"trainer.max_epochs": 2000, "save_every": 0.2}
    Path("study.yaml").write_text(yaml.safe_dump(small | {"seeds": 2, "set": long}))
    call = _start("study.yaml", "--rows", "teacher", "--processes", "2", "--threads", "1", "--report", "false")
    runs = [Path(f"runs/small/teacher-{seed}") for seed in range(2)]
    deadline = time.monotonic() + 120
    while not all((run / "checkpoints" / "last.ckpt").exists() for run in runs):
        assert time.monotonic() < deadline, "the runs did not start"
        time.sleep(0.05)
    return call, runs


def _are_free(runs: Sequence[Path]) -> bool:
    """Whether no process works on any of the runs."""
    with ExitStack() as stack:
        return all(stack.enter_context(claimed(run.parent / ".locks" / run.name)) for run in runs)


@pytest.mark.faults
def test_processes_of_a_stopped_call_save_and_stop() -> None:
    call, runs = _two_processes_that_train()
    before = {run: (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns for run in runs}
    assert not _are_free(runs)
    call.terminate()
    _, err = call.communicate(timeout=60)
    assert call.returncode == 143
    said = [line.partition(":")[0] for line in sorted(err.splitlines())]
    assert said == [f"stopped in teacher-{seed} by SIGTERM" for seed in range(2)], err
    assert _are_free(runs)
    for run in runs:
        assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns > before[run]
        assert not (run / "row.json").exists()


@pytest.mark.faults
def test_processes_of_a_killed_call_stop() -> None:
    call, runs = _two_processes_that_train()
    assert not _are_free(runs)
    call.kill()
    call.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while not _are_free(runs):
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.05)
    assert not any((run / "row.json").exists() for run in runs)


@pytest.mark.slow
def test_two_calls_at_once_do_each_run_once() -> None:
    Path("study.yaml").write_text(yaml.safe_dump(small_study() | {"seeds": 3}))
    calls = [_start("study.yaml", "--report", "false") for _ in range(2)]
    for call in calls:
        out, err = call.communicate(timeout=200)
        assert (call.returncode, err) == (0, "")
        assert out.count(" seed ") == 9
    _check_that_nine_runs_were_done_once()


@pytest.mark.faults
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    small = small_study(**{"trainer.max_epochs": 40})
    Path("study.yaml").write_text(yaml.safe_dump(small | {"set": small["set"] | {"save_every": 0.2}}))
    call = _start("study.yaml", "--report", "false")
    run = Path("runs/small/distilled-0")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(call.pid, signal.SIGKILL)
    call.communicate(timeout=60)
    assert not (run / "row.json").exists()
    again = _start("study.yaml", "--report", "false", "--verbose", "true")
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert "small: 3 runs, 2 done before" in out
    assert "resuming runs/small/distilled-0/checkpoints/last.ckpt after step" in out + err
    assert json.loads((run / "metrics.json").read_text())["steps"] == 40 * 29


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    fit = ["fit", "--config", str(CONFIGS / "quickstart" / "teacher.yaml"), "--model.net.hidden", "[32]"]
    assert (
        main([*fit, "--run_dir", str(run), "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]) == 0
    )
    return run


def _options(path: Path) -> Options:
    return Options(path / "runs", None, verbose=False)


STUDIES = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if "\nrows:" in path.read_text()]
ROWS = [(path, row) for path in STUDIES for row in read_study(path).rows]


@pytest.mark.parametrize(
    ("path", "row"),
    [
        # The parser takes half a second each.
        pytest.param(path, row, marks=[] if row.name in {"conv", "same-90-decay"} else pytest.mark.slow, id=row.name)
        for path, row in ROWS
    ],
)
def test_every_row_of_every_study_is_understood(path: Path, row: StudyRow, tmp_path: Path) -> None:
    assert row.study.startswith(path.parent.name)
    check_row(row, _options(tmp_path))


@pytest.mark.parametrize(
    ("study_file", "name"),
    [
        ("mnist/table", "same-view-300"),
        pytest.param("mnist/strong", "conv-elastic", marks=pytest.mark.slow),
        ("quickstart/study", "distilled-jitter"),
    ],
)
def test_rows_run_one_step(study_file: str, name: str, teacher: Path, tmp_path: Path) -> None:
    (row,) = (row for row in read_study(CONFIGS / f"{study_file}.yaml").rows if row.name == name)
    command = [*fit_command(row, _options(tmp_path)), "--run_dir", str(tmp_path / "run")]
    command += ["--data.dataset", "mnist5k", "--trainer.fast_dev_run", "true", "--trainer.enable_progress_bar", "false"]
    assert main([*command, *(["--model.teachers", str(teacher)] if row.teachers else [])]) == 0


@pytest.mark.slow
def test_a_configuration_of_ones_own_against_its_plain_student(teacher: Path) -> None:
    student = yaml.safe_load((CONFIGS / "quickstart" / "distill.yaml").read_text())
    student["model"]["init_args"] |= {"teachers": str(teacher)}
    student["model"]["init_args"]["student"]["init_args"] = {"hidden": [8]}
    student["trainer"] = {"max_epochs": 1}
    Path("mine.yaml").write_text(yaml.safe_dump(student))
    assert study("mine.yaml", "--seeds", "1", "--report", "false", "--output", "results") == 0
    plain, distilled = json.loads(Path("results/mine-study.json").read_text())
    assert (plain["row"], distilled["row"]) == ("mine-plain", "mine")
    assert "teacher_errors" not in plain["runs"][0]["test"]
    assert distilled["command"] == "python -m kd_lightning study mine.yaml --seeds 1"
    measured = json.loads(Path("runs/mine-study/mine-0/metrics.json").read_text())["test"]["errors"]
    assert distilled["errors"] == [measured]
    assert f"| mine | {measured} | 1 |" in Path("results/mine-study.md").read_text()
