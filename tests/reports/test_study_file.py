"""Study files are read strictly: what is misspelt or contradicts itself is one line, before anything trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_lightning.reports.study_file import Study, read_study

STUDIES = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").rglob("*.yaml")
    if "rows" in yaml.safe_load(path.read_text())
)


def _study(text: str, name: str = "study.yaml") -> Study:
    for config in ("base.yaml", "fast.yaml"):
        Path(config).write_text("trainer: {max_epochs: 2}\nrun_dir: runs/x\n")
    Path(name).write_text(text)
    return read_study(Path(name))


def test_rows_are_built_from_the_study_and_their_own_lines() -> None:
    study = _study("""
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


def test_values_reach_the_command_line_as_they_are_meant() -> None:
    row = _study("""
configs: [base.yaml]
set: {a: null, b: true, c: 2e-3, d: 0.002, e: text, f: {class_path: kd_lightning.Jitter, init_args: {pixels: 1}}}
rows: [{name: x}]
""").rows[0]
    assert row.flags()[3::2] == [
        "null",
        "true",
        "2e-3",
        "0.002",
        "text",
        '{"class_path": "kd_lightning.Jitter", "init_args": {"pixels": 1}}',
    ]


def test_settings_do_not_depend_on_where_a_value_stands() -> None:
    Path("long.yaml").write_text(
        "trainer: {max_epochs: 9}\nmodel: {class_path: M, init_args: {net: {class_path: N}}}\n"
    )
    by_file = _study("rows: [{name: x, configs: [base.yaml, long.yaml]}]").rows[0]
    by_option = _study("""
configs: [base.yaml]
rows: [{name: x, set: {trainer.max_epochs: 9, model: M, model.net: N, }}]
""").rows[0]
    other = _study("rows: [{name: x, configs: [long.yaml, base.yaml]}]").rows[0]
    assert by_file.settings() == by_option.settings()
    assert by_file.settings()["options"] == {"trainer.max_epochs": 9, "model": "M", "model.net": "N"}
    assert other.settings() != by_file.settings()


def test_settings_are_what_json_gives_back() -> None:
    row = _study("rows: [{name: x, configs: [base.yaml], set: {a: 2026-11-26, b: .nan, c: {1: [2, 3]}}}]").rows[0]
    settings = row.settings()
    assert json.dumps(settings) == json.dumps(json.loads(json.dumps(settings)))
    assert settings["options"]["a"] == "2026-11-26"
    assert settings["options"]["c.1"] == [2, 3]


def test_teachers_of_another_study_lie_in_its_folder() -> None:
    _study("{name: first, seeds: 7, rows: [{name: big, configs: [base.yaml]}]}", "first.yaml")
    row = _study(
        "{name: second, teachers_from: [first.yaml], rows: [{name: x, configs: [base.yaml], teachers: {big: 1}}]}"
    ).rows[0]
    assert row.teacher_folders(Path("runs")) == [Path("runs/first/big-0")]


def test_each_run_may_have_the_teacher_of_its_own_seed() -> None:
    study = _study("""
configs: [base.yaml]
rows:
  - {name: student, teachers: {big: each, other: 2}, seeds: 3}
  - {name: big, seeds: 3}
  - {name: other, seeds: 2}
""")
    student, big, other = study.rows
    assert student.teachers == ((big, None), (other, 2))
    others = [Path("runs/study/other-0"), Path("runs/study/other-1")]
    for seed in range(3):
        assert student.teacher_folders(Path("runs"), seed) == [Path(f"runs/study/big-{seed}"), *others]
    assert student.settings()["teachers"]["big"]["seeds"] is None


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
        _study(text)
    assert "\n" not in str(error.value)


def test_missing_files_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"row x has the configuration no.yaml, but there is no file no.yaml"):
        _study("rows: [{name: x, configs: [no.yaml]}]")
    with pytest.raises(FileNotFoundError, match=r"no study or configuration nowhere.yaml"):
        read_study(Path("nowhere.yaml"))


def test_a_distill_configuration_is_compared_with_its_plain_student() -> None:
    model: dict[str, Any] = {"class_path": "kd_lightning.DistillModule", "init_args": {"teachers": "runs/t"}}
    Path("mine.yaml").write_text(yaml.safe_dump({"model": model}))
    study = read_study(Path("mine.yaml"))
    plain, distilled = study.rows
    assert (study.name, plain.name, distilled.name) == ("mine-study", "mine-plain", "mine")
    assert plain.options == {"model.soft_weight": 0.0, "model.teachers": None}
    assert distilled.options == {}
    assert plain.seeds == distilled.seeds == 5
    model["init_args"]["feature_losses"] = []
    Path("mine.yaml").write_text(yaml.safe_dump({"model": model}))
    assert read_study(Path("mine.yaml")).rows[0].options["model.feature_losses"] is None
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": "kd_lightning.TeacherModule"}}))
    assert [row.name for row in read_study(Path("mine.yaml")).rows] == ["mine"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_study_is_read(path: Path) -> None:
    study = read_study(path)
    command = next(line for line in path.read_text().splitlines() if "python -m kd_lightning" in line)
    assert f"study configs/{path.parent.name}/{path.name}" in command
    assert study.name.startswith(path.parent.name)
    assert all(row.flags() for row in study.rows)


def test_studies_have_folders_of_their_own() -> None:
    names = [read_study(path).name for path in STUDIES]
    assert len(set(names)) == len(names) > 8


def test_a_verdict_has_three_rows_with_the_same_seeds(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "quickstart" / "distill.yaml"
    study = read_study(config, verdict=True)
    assert [row.name for row in study.rows] == ["plain", "smoothed", "distilled"]
    plain, smoothed, distilled = study.rows
    assert plain.options == {"model.soft_weight": 0.0, "model.teachers": None}
    assert smoothed.options == plain.options | {"model.label_smoothing": 0.1}
    assert distilled.options == {}
    assert len({row.seeds for row in study.rows}) == 1
    with pytest.raises(ValueError, match="--verdict expected the configuration of a DistillModule"):
        read_study(config.with_name("teacher.yaml"), verdict=True)
