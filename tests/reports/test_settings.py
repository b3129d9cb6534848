"""The tables of costs and configurations say each thing once."""

from pathlib import Path

from kd_lightning.reports.rows import group_names, group_runs
from kd_lightning.reports.run_folders import find_runs, read_run
from kd_lightning.reports.settings import cost_table, differences
from tests.reports.made_runs import COSTS, make_run, student, teacher


def test_what_configurations_differ_in(tmp_path: Path) -> None:
    one, other = ({"data": {"init_args": {"augment": a, "size": 9}}} for a in (None, {"class_path": "m.Jitter"}))
    make_run(tmp_path, "teacher", 5, model=teacher(hidden=9), config=other)
    make_run(tmp_path, "plain", 6, model=student(0.0, temperature=20.0, averaging="geometric"), config=one)
    make_run(tmp_path, "distilled", 5, model=student(0.9, temperature=4.0, averaging="arithmetic"), config=one)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    header, lines = differences(groups, group_names(groups))
    assert header == ["setting", "teacher", "plain", "distilled"]
    assert lines == [
        ["data.augment", "Jitter", "none", "none"],
        ["model", "TeacherModule", "DistillModule", "DistillModule"],
        ["model.soft_weight", "", "0.0", "0.9"],
        ["model.temperature", "", "", "4.0"],  # which does nothing for a plain student
        ["net.hidden", "9", "3", "3"],
    ]


def test_a_schedule_is_shown_by_both_ends(tmp_path: Path) -> None:
    for name, temperature in {"still": 4.0, "falling": {"start": 20.0, "end": 4.0}}.items():
        make_run(tmp_path, name, 5, model=student(0.9, temperature=temperature))
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    header, lines = differences(groups, group_names(groups))
    still, falling = header.index("still"), header.index("falling")
    shown = {line[0]: (line[still], line[falling]) for line in lines}
    assert shown == {
        "model.temperature": ("4.0", ""),
        "model.temperature.end": ("", "4.0"),
        "model.temperature.start": ("", "20.0"),
    }


def test_a_net_costs_the_same_under_any_name(tmp_path: Path) -> None:
    slow = {"net": {**COSTS["net"], "single_ms": 41.0, "batch_ms": 50.0}}
    make_run(tmp_path, "plain", 6, model=student(0.0), costs=slow)
    make_run(tmp_path, "distilled", 5, model=student(0.9), costs=COSTS, teachers=2, teacher_parameters=90)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    _, lines = cost_table(groups, group_names(groups))
    assert [line[0] for line in lines] == ["plain, distilled", "ensemble of 2 teachers"]
    assert lines[0][4:6] == ["0.100 ms", "1.00 ms for 1,000"]
