"""A row of a study knows its folders, its arguments and its settings."""

import json
from pathlib import Path

from tests.reports.study_text import study_of


def test_values_reach_the_command_line_as_they_are_meant() -> None:
    row = study_of("""
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
    by_file = study_of("rows: [{name: x, configs: [base.yaml, long.yaml]}]").rows[0]
    by_option = study_of("""
configs: [base.yaml]
rows: [{name: x, set: {trainer.max_epochs: 9, model: M, model.net: N, }}]
""").rows[0]
    other = study_of("rows: [{name: x, configs: [long.yaml, base.yaml]}]").rows[0]
    assert by_file.settings() == by_option.settings()
    assert by_file.settings()["options"] == {"trainer.max_epochs": 9, "model": "M", "model.net": "N"}
    assert other.settings() != by_file.settings()


def test_settings_are_what_json_gives_back() -> None:
    row = study_of("rows: [{name: x, configs: [base.yaml], set: {a: 2026-11-26, b: .nan, c: {1: [2, 3]}}}]").rows[0]
    settings = row.settings()
    assert json.dumps(settings) == json.dumps(json.loads(json.dumps(settings)))
    assert settings["options"]["a"] == "2026-11-26"
    assert settings["options"]["c.1"] == [2, 3]


def test_each_run_may_have_the_teacher_of_its_own_seed() -> None:
    study = study_of("""
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
