"""Runs that differ only by their seed share a row; the table has the columns that say something."""

from pathlib import Path

import pytest

from kd_lightning.reports.rows import group_names, group_runs, table_rows
from kd_lightning.reports.run_folders import find_runs, read_run
from kd_lightning.reports.tables import cells_of, title
from tests.reports.made_runs import make_run, student, teacher


def test_rows_over_seeds(tmp_path: Path) -> None:
    for seed, errors in enumerate([10, 12, 17]):
        make_run(tmp_path, f"taught-{seed}", errors, seed, teachers=3, teacher_parameters=500)
    make_run(tmp_path, "hotter", 9, temperature=8.0, error_rate_interval=[0.004, 0.017])
    make_run(tmp_path, "unfinished", None, temperature=9.0)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    ensemble, hotter, taught, _ = table_rows(groups)
    assert (hotter.name, hotter.runs, hotter.errors) == ("hotter", 1, [9])
    cells = {line["run"]: line for line in cells_of(table_rows(groups))}
    assert cells["hotter"]["error %"] == "0.90 (0.40 to 1.70)"
    assert (ensemble.name, ensemble.errors, ensemble.parameters) == ("ensemble of 3 teachers", [7], 500)
    assert (taught.name, taught.runs, taught.errors, taught.compression) == ("taught", 3, [10, 12, 17], 5.0)
    assert cells["taught"]["errors"] == "13.0 ± 3.6"
    assert cells["taught"]["error %"] == "1.30 ± 0.36"
    assert cells["unfinished"]["errors"] == "no checkpoint yet"
    assert cells["ensemble of 3 teachers"]["agreement"] == ""


def test_rows_are_averaged_over_the_same_test_data_only(tmp_path: Path) -> None:
    for seed, errors in enumerate([10, 12]):
        make_run(tmp_path, f"taught-{seed}", errors, seed, data={"dataset": "MNIST"})
    make_run(tmp_path, "taught-2", 900, 2, data={"dataset": "KMNIST"})
    make_run(tmp_path, "taught-3", 90, 3, data={"dataset": "MNIST"}, examples=100)
    make_run(tmp_path, "taught-4", None, 4)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    assert [[run.name for run in members] for members in groups] == [
        ["taught-0", "taught-1", "taught-4"],
        ["taught-2"],
        ["taught-3"],
    ]
    own, other, part = table_rows(groups)
    assert own.errors == [10, 12]
    assert part.name == "taught-3"
    assert other.errors == [900]


def test_teachers_stand_before_plain_and_distilled_students(tmp_path: Path) -> None:
    make_run(tmp_path, "a-distilled", 5, model=student(0.9, temperature=4.0), teachers=2, teacher_parameters=500)
    make_run(tmp_path, "b-plain", 8, model=student(0.0))
    make_run(tmp_path, "c-teacher", 6, model=teacher(hidden=9))
    make_run(tmp_path, "own", 6, model={"class_path": "mine.Module"})
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    assert group_names(groups) == ["c-teacher", "b-plain", "own", "a-distilled"]
    rows = table_rows(groups)
    assert [row.name for row in rows] == ["c-teacher", "ensemble of 2 teachers", "b-plain", "own", "a-distilled"]


@pytest.mark.parametrize("end", ["", "/checkpoints/last.ckpt"])
def test_runs_with_the_teachers_of_their_seeds_share_a_row(end: str, tmp_path: Path) -> None:
    for seed in range(3):
        own, one = ([f"runs/2/teacher-{number}{end}"] for number in (seed, 1))
        make_run(tmp_path, f"each-{seed}", 10 + seed, seed, model=student(0.9, temperature=4.0, teachers=own))
        make_run(tmp_path, f"same-{seed}", 20 + seed, seed, model=student(0.9, temperature=8.0, teachers=one))
    other = student(0.9, temperature=4.0, teachers=[f"runs/2/teacher-10{end}"])
    make_run(tmp_path, "other-0", 5, 0, model=other)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    assert [[run.name for run in members] for members in groups] == [
        ["each-0", "each-1", "each-2"],
        ["other-0"],
        ["same-0", "same-1", "same-2"],
    ]


def test_columns_stand_where_runs_differ(tmp_path: Path) -> None:
    for name, errors, augment in (("plain", 8, None), ("plain-jitter", 7, {"class_path": "kd_lightning.Jitter"})):
        data = {"init_args": {"augment": augment}}
        make_run(tmp_path, name, errors, model=student(0.0), config={"data": data})
    rows = table_rows(group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])]))
    assert cells_of(rows) == [
        {"run": "plain", "augment": "none", "errors": "8", "error %": "0.80"},
        {"run": "plain-jitter", "augment": "Jitter", "errors": "7", "error %": "0.70"},
    ]
    assert list(cells_of(rows[:1])[0]) == ["run", "n", "errors", "error %", "parameters", "agreement", "training"]
    assert title(rows) == "errors of 1,000 test images"


def test_an_ensemble_is_not_said_to_be_trained_without(tmp_path: Path) -> None:
    data = {"init_args": {"augment": {"class_path": "kd_lightning.Jitter"}}}
    make_run(tmp_path, "plain", 8, model=student(0.0))
    make_run(tmp_path, "taught", 8, model=student(0.9), config={"data": data}, teachers=3, teacher_parameters=500)
    cells = cells_of(table_rows(group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])))
    assert [line["augment"] for line in cells] == ["", "none", "Jitter"]


def test_a_run_that_was_stopped_early_is_marked(tmp_path: Path) -> None:
    stops = {"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]}}
    make_run(tmp_path, "whole", 8, steps_done=100, steps_planned=100.0)
    make_run(tmp_path, "cut", 9, temperature=2.0, steps_done=60, steps_planned=100.0)
    make_run(tmp_path, "ended-itself", 7, temperature=3.0, config=stops, steps_done=60, steps_planned=100.0)
    make_run(tmp_path, "old", 7, temperature=5.0)
    runs = {run.name: run for run in (read_run(folder) for folder in find_runs([str(tmp_path)]))}
    assert {name: run.stopped_early for name, run in runs.items()} == {
        "whole": None,
        "cut": "stopped after 60 of 100 steps",
        "ended-itself": None,
        "old": None,
    }
    names = [line["run"] for line in cells_of(table_rows(group_runs(list(runs.values()))))]
    assert sorted(names) == ["cut, unfinished", "ended-itself", "old", "whole"]


def test_rows_of_one_name_have_their_folders_before_it(tmp_path: Path) -> None:
    for parent, temperature in (("short", 2.0), ("long", 4.0)):
        for seed in range(2):
            make_run(tmp_path / parent, f"taught-{seed}", 10 + seed, seed, temperature=temperature)
    make_run(tmp_path / "long", "other", 9, temperature=8.0)
    groups = group_runs([read_run(folder) for folder in find_runs([str(tmp_path)])])
    names = ["other", "long/taught", "short/taught"]
    assert group_names(groups) == names
    assert [line["run"] for line in cells_of(table_rows(groups))] == names
