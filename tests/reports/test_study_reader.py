"""Study files are read strictly: a misspelt key or a contradiction is one line, before anything trains."""

from pathlib import Path

import pytest

from tests.reports.study_text import study_of


def test_rows_are_built_from_the_study_and_their_own_lines() -> None:
    study = study_of("""
name: mine
configs: [base.yaml]
set: {data.val_size: 0, trainer.max_epochs: 3}
seeds: 4
rows:
  - {name: student, configs: [fast.yaml], set: {trainer.max_epochs: 5, model.net.hidden: [8, 8]}, teachers: {big: 2}}
  - {name: big, what: a teacher, seeds: 2, paper: 67}
""")
    student, big = study.rows
    assert study.name == "mine"
    assert [config.name for config in student.configs] == ["base.yaml", "fast.yaml"]
    assert student.options == {"data.val_size": 0, "trainer.max_epochs": 5, "model.net.hidden": [8, 8]}
    assert (student.seeds, student.what, student.paper, student.measure) == (4, "student", None, "test")
    assert (big.seeds, big.what, big.paper) == (2, "a teacher", 67)
    assert student.teachers == ((big, 2),)
    assert student.folder(Path("runs"), 3) == Path("runs/mine/student-3")
    assert student.teacher_folders(Path("runs")) == [Path("runs/mine/big-0"), Path("runs/mine/big-1")]
    flags = "--config base.yaml --config fast.yaml --data.val_size 0 --trainer.max_epochs 5 --model.net.hidden"
    assert student.flags() == [*flags.split(), "[8, 8]"]


def test_teachers_of_another_study_lie_in_its_folder() -> None:
    study_of("{name: first, seeds: 7, rows: [{name: big, configs: [base.yaml]}]}", "first.yaml")
    row = study_of(
        "{name: second, teachers_from: [first.yaml], rows: [{name: x, configs: [base.yaml], teachers: {big: 1}}]}"
    ).rows[0]
    assert row.teacher_folders(Path("runs")) == [Path("runs/first/big-0")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [{name: x, seed: 3}]", r"row 1 \(x\) has the unknown key seed; did you mean seeds\?"),
        ("rows: [{name: x, sets: 3}]", r"row 1 \(x\) has the unknown key sets; did you mean set\?"),
        ("{colour: red, rows: [{name: x}]}", "the study has the unknown key colour; expected one of name, measure, "),
        ("rows: [{configs: [base.yaml]}]", "row 1 has no name; add one"),
        ("rows: [{name: 3}]", "name of row 1 must be the name of a folder, got 3"),
        ("rows: [{name: a/b}]", "must be the name of a folder, got 'a/b'"),
        ("rows: [{name: x}]", "row x has no configs; name at least one"),
        ("rows: [{name: x, configs: base.yaml}]", r"configs of row 1 \(x\) must be a list of files, got 'base.yaml'"),
        ("rows: []", r"rows must be a list of rows, got \[\]"),
        ("rows: [3]", "row 1 must be a mapping with name, what, configs, set, seeds, teachers, paper, got 3"),
        ("{configs: [base.yaml], rows: [{name: x}, {name: x}]}", "two rows are named x; give each its own name"),
        ("{configs: [base.yaml], rows: [{name: x, seeds: 0}]}", "must be a number of seeds, >= 1, got 0"),
        ("{configs: [base.yaml], rows: [{name: x, seeds: true}]}", "must be a number of seeds, >= 1, got True"),
        ("{configs: [base.yaml], rows: [{name: x, paper: few}]}", "must be a number of errors, got 'few'"),
        ("{configs: [base.yaml], rows: [{name: x, what: 3}]}", r"what of row 1 \(x\) must be text, got 3"),
        ("{measure: training, rows: [{name: x}]}", "measure of the study must be test or validation, got 'training'"),
        ("{set: [3], rows: [{name: x}]}", r"set of the study must be a mapping of dotted options to values, got \[3\]"),
        ("{set: {run_dir: x}, rows: [{name: x}]}", "set of the study must be without run_dir, which the study gives"),
        (
            "{configs: [base.yaml], rows: [{name: x, teachers: {y: 1}}, {name: yy}]}",
            "row x has the teacher y, which is no row; did you mean yy",
        ),
        (
            "{configs: [base.yaml], rows: [{name: x, teachers: [y]}]}",
            "a mapping of rows to numbers of seeds, >= 1, or each",
        ),
        (
            "{configs: [base.yaml], rows: [{name: x, teachers: {y: no}}]}",
            "must be a mapping of rows to numbers of seeds",
        ),
        (
            "{configs: [base.yaml], rows: [{name: x, teachers: {y: 1}}, {name: y, teachers: {x: 1}}]}",
            "rows teach each other in a circle, x <- y <- x; remove one",
        ),
        ("{configs: [base.yaml], rows: [{name: x, teachers: {x: 1}}]}", "rows teach each other in a circle, x <- x;"),
        (
            "{configs: [base.yaml], rows: [{name: y}, {name: x, teachers: {y: 1}, set: {model.teachers: z}}]}",
            "row x has teachers and sets model.teachers; give one of them",
        ),
        ("{teachers_from: [study.yaml], rows: [{name: x}]}", "teachers_from leads back to study.yaml; remove one"),
        ("{rows: [{name: x, name: y}]}", "study.yaml: name stands twice in a mapping, line 1; keep one"),
        ("rows: [", "study.yaml is not YAML: "),
        ("[3]", "study.yaml: expected a mapping, got list"),
        ("trainer: {}", "study.yaml: expected a study with rows or a configuration with model, got trainer"),
    ],
)
def test_what_is_not_understood_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        study_of(text)
    assert "\n" not in str(error.value)
