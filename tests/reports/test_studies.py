"""What a study's runs measured becomes a table: which runs count, and what each file says."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.reports.studies import collect, is_done, print_summary, write_summary
from kd_lightning.reports.study_row import Study, StudyRow

ROOT = Path("runs")
TEACHER = StudyRow("small", "teacher", "a teacher", "test", (Path("a.yaml"),), {"x.y": 3}, 2, paper=67)
STUDENT = StudyRow("small", "student", "student, 2x8", "test", (), {}, 1, teachers=((TEACHER, 2),))
STUDY = Study("small", (TEACHER, STUDENT))


def _leave_run(row: StudyRow, seed: int, errors: int, settings: dict[str, Any], **more: Any) -> None:
    run = row.folder(ROOT, seed)
    run.mkdir(parents=True)
    test = {"errors": errors, "examples": 1000, **more}
    record = {"test": test, "train_seconds": 20.0 + seed, "threads": 1, "versions": {"torch": f"2.1{4 - seed}"}}
    record["hardware"] = f"a {row.name}'s GPU" if seed == 0 else None
    (run / "metrics.json").write_text(json.dumps(record))
    (run / "row.json").write_text(json.dumps(settings))


def _settings(row: StudyRow) -> dict[str, Any]:
    return {"options": row.options, "threads": 1}


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    for seed, errors in ((0, 20), (1, 23)):
        _leave_run(TEACHER, seed, errors, _settings(TEACHER))
    _leave_run(STUDENT, 0, 31, _settings(STUDENT), teacher_errors=19)
    return collect(STUDY, ROOT, _settings, "python -m kd_lightning study small.yaml")


def test_an_ensemble_stands_above_its_student(lines: list[dict[str, Any]]) -> None:
    teacher, ensemble, student = lines
    assert (teacher["mean"], teacher["n"], teacher["errors"], teacher["train_seconds"]) == (21.5, 2, [20, 23], 20.5)
    assert teacher["sd"] == pytest.approx(2.1213, abs=1e-4)
    assert (ensemble["row"], ensemble["what"]) == ("teacher x 2", "these 2 teachers together")
    assert (ensemble["mean"], ensemble["n"], ensemble["sd"], ensemble["train_seconds"]) == (19, 1, None, None)
    assert (student["mean"], student["n"], student["sd"]) == (31, 1, None)
    assert student["runs"][0]["test"]["teacher_errors"] == 19


def test_an_ensemble_of_two_rows_names_both() -> None:
    other = TEACHER._replace(name="other")
    student = STUDENT._replace(teachers=((TEACHER, 2), (other, 1)))
    _leave_run(student, 0, 31, _settings(student), teacher_errors=19)
    ensemble, _ = collect(Study("small", (student,)), ROOT, _settings, "")
    assert (ensemble["row"], ensemble["what"]) == ("teacher x 2 + other x 1", "2 of teacher and 1 of other together")


def test_the_files_of_a_summary(lines: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    write_summary(lines, Path("out"), "small", wall_seconds=90)
    print_summary(lines, "small")
    assert "small: errors of 1,000 test examples, mean ± standard deviation" in capsys.readouterr().out
    command = "python -m kd_lightning study small.yaml"
    text = Path("out/small.md").read_text()
    assert text.splitlines()[:7] == [
        f"`{command}`",
        "",
        "| --rows | row | paper | errors | n | training |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| `teacher` | a teacher | 67 | 21.5 ± 2.1 | 2 | 20 s |",
        "|  | these 2 teachers together | – | 19 | 1 | – |",
        "| `student` | student, 2x8 | – | 31 | 1 | 20 s |",
    ]
    unknown = "a machine that is not recorded"  # of an older run
    assert f"mean wall time of a run on {unknown} or a student's GPU or a teacher's GPU, threads: 1" in text
    assert "threads: 1, 61 s for all; torch 2.13 or 2.14. All in one call, tests included: 90 s." in text
    with Path("out/small.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["teacher", "teacher x 2", "student"]
    assert (rows[0]["configs"], rows[0]["set"], rows[0]["errors"]) == ("a.yaml", '{"x.y": 3}', "[20, 23]")
    assert json.loads(Path("out/small.json").read_text()) == lines


def test_a_table_without_a_papers_figures_has_no_column_for_them(lines: list[dict[str, Any]]) -> None:
    write_summary(lines[1:], Path("out"), "small", wall_seconds=None)
    text = Path("out/small.md").read_text()
    assert "\n| --rows | row | errors | n | training |\n" in text
    assert "All in one call" not in text


def test_runs_with_other_settings_do_not_count(lines: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    other = TEACHER._replace(options={"x.y": 4})
    collected = collect(Study("small", (other, STUDENT)), ROOT, _settings, "command")
    assert [line["row"] for line in collected] == ["teacher x 2", "student"]
    assert (
        "runs/small/teacher-1 was done with other settings (x.y: the run has 3, asked for 4)" in capsys.readouterr().out
    )
    with pytest.raises(
        ValueError, match=r"runs/small/teacher-0 .*x\.y: the run has 3, asked for 4.*choose another --root"
    ):
        is_done(TEACHER.folder(ROOT, 0), _settings(other))
    assert is_done(TEACHER.folder(ROOT, 0), _settings(TEACHER))
    assert not is_done(TEACHER.folder(ROOT, 7), _settings(TEACHER))
