"""Who is compared with whom, how many errors are saved, and what is said about it."""

from pathlib import Path
from typing import Any

import pytest

from kd_lightning.reports.comparison import findings, plain_student_of, role_of, saving
from kd_lightning.reports.rows import group_names, group_runs
from kd_lightning.reports.run_folders import Run, find_runs, read_run
from tests.reports.made_runs import make_run, student, teacher


def _groups(root: Path) -> dict[str, list[Run]]:
    groups = group_runs([read_run(folder) for folder in find_runs([str(root)])])
    return dict(zip(group_names(groups), groups, strict=True))


def _findings(root: Path) -> list[str]:
    groups = _groups(root)
    return findings(list(groups.values()), list(groups))


@pytest.mark.parametrize(
    ("model", "role"),
    [
        (teacher(), "teacher"),
        (student(0.0), "plain"),
        (student(0.0, feature_losses=[{"class_path": "Hints"}]), "distilled"),
        (student(0.5), "distilled"),
        ({"class_path": "mine.Module"}, "other"),
        ("mine.Module", "other"),
        ({}, "other"),
    ],
)
def test_roles(model: Any, role: str) -> None:
    assert role_of(Run(Path("x"), {"model": model}, {}, {}, None)) == role


def test_the_plain_student_differs_least_and_was_tested_on_the_same(tmp_path: Path) -> None:
    shifted = {"data": {"augment": "Jitter"}}
    make_run(tmp_path, "plain", 8, model=student(0.0))
    make_run(tmp_path, "plain-jitter", 7, model=student(0.0), config=shifted)
    make_run(tmp_path, "larger", 7, model=student(0.0, student={"class_path": "N", "init_args": {"hidden": 5}}))
    make_run(tmp_path, "elsewhere", 7, model=student(0.0), examples=500, config=shifted)
    make_run(tmp_path, "distilled", 6, model=student(0.9))
    make_run(tmp_path, "distilled-jitter", 5, model=student(0.9), config=shifted)
    make_run(tmp_path, "alone", 5, model=student(0.9, student={"class_path": "N", "init_args": {"hidden": 7}}))
    groups = _groups(tmp_path)
    assert plain_student_of(groups["distilled"], list(groups.values())) == groups["plain"]
    assert plain_student_of(groups["distilled-jitter"], list(groups.values())) == groups["plain-jitter"]
    assert plain_student_of(groups["alone"], list(groups.values())) is None


def test_the_same_net_of_a_teacher_module_is_a_plain_student(tmp_path: Path) -> None:
    make_run(tmp_path, "small", 8, model=teacher(hidden=3))
    make_run(tmp_path, "born", 8, model=student(0.9, teachers="runs/small"))
    make_run(tmp_path, "taught", 7, model=student(0.9, teachers="runs/large"))
    groups = _groups(tmp_path)
    assert plain_student_of(groups["taught"], list(groups.values())) == groups["small"]
    assert plain_student_of(groups["born"], list(groups.values())) is None


def test_errors_saved_over_seeds(tmp_path: Path) -> None:
    for seed, (plain, distilled) in enumerate([(10, 7), (12, 8), (17, 12)]):
        make_run(tmp_path, f"plain-{seed}", plain, seed, model=student(0.0))
        make_run(tmp_path, f"distilled-{seed}", distilled, seed, model=student(0.9))
    make_run(tmp_path, "plain-3", 99, 3, model=student(0.0))  # without a partner
    groups = _groups(tmp_path)
    found = saving(groups["plain"], groups["distilled"])
    # 3, 4 and 5: mean 4, standard deviation 1, and Student's t of two degrees of freedom is 4.303.
    half = 4.303 / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((4, 4 - half, 4 + half), abs=1e-3)


def test_errors_saved_over_examples_with_one_seed(tmp_path: Path) -> None:
    make_run(tmp_path, "plain", 20, 3, model=student(0.0), wrong=list(range(20)))
    make_run(tmp_path, "distilled", 14, 4, model=student(0.9), wrong=list(range(10, 24)))
    groups = _groups(tmp_path)
    found = saving(groups["plain"], groups["distilled"])
    # 10 gained, 4 lost of 1,000.
    half = 1.96 * (10 + 4 - 36 / 1000) ** 0.5
    assert (found.mean, found.low, found.high) == pytest.approx((6, 6 - half, 6 + half), abs=1e-3)


def test_without_a_common_seed_there_is_no_interval(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, f"plain-{seed}", 10 + seed, seed, model=student(0.0))
        make_run(tmp_path, f"distilled-{seed}", 7, seed + 5, model=student(0.9))
    groups = _groups(tmp_path)
    assert saving(groups["plain"], groups["distilled"])[1:] == (3.5, None, None)


@pytest.mark.parametrize(
    ("taught_by", "plain", "distilled", "said"),
    [
        (
            257,
            202,
            283,
            "the teacher makes more errors (257) than the plain student, plain (202): nothing to teach; "
            "train the teacher for longer",
        ),
        (202, 202, 201, "the teacher makes as many errors (202) as the plain student, plain (202): nothing to teach"),
        (
            150,
            202,
            210,
            "distilled makes more errors (210) than the plain student, plain (202), though the teacher makes 150; "
            "try another temperature",
        ),
        (150, 202, 150, "distilled makes 150 errors and the teacher makes 150: nothing is left to learn"),
        (150, 202, 170, None),
    ],
)
def test_one_line_where_distillation_did_not_do_what_it_should(
    taught_by: int, plain: int, distilled: int, said: str | None, tmp_path: Path
) -> None:
    make_run(tmp_path, "plain", plain, model=student(0.0))
    make_run(tmp_path, "distilled", distilled, model=student(0.9), teacher_errors=taught_by)
    lines = _findings(tmp_path)
    assert len(lines) == (said is not None)
    assert said is None or lines[0].startswith(said)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (range(10, 212), " (200), which may be chance, though the teacher makes 150; try"),  # 12 lost, 10 gained
        (range(230), " (200), though the teacher makes 150; try"),  # 30 lost, none gained
    ],
)
def test_more_errors_that_may_be_chance_are_said_to_be(wrong: range, said: str, tmp_path: Path) -> None:
    make_run(tmp_path, "plain", 200, model=student(0.0), wrong=list(range(200)))
    make_run(tmp_path, "distilled", len(wrong), model=student(0.9), teacher_errors=150, wrong=list(wrong))
    (line,) = _findings(tmp_path)
    assert said in line


def test_more_errors_over_seeds_may_be_chance(tmp_path: Path) -> None:
    for seed, (plain, distilled) in enumerate([(200, 210), (205, 201), (198, 204)]):
        make_run(tmp_path, f"plain-{seed}", plain, seed, model=student(0.0))
        make_run(tmp_path, f"distilled-{seed}", distilled, seed, model=student(0.9), teacher_errors=150)
    (line,) = _findings(tmp_path)
    assert line.startswith(
        "distilled makes more errors (205) than the plain student, plain (201, mean of 3), which may be chance"
    )


def test_a_worse_teacher_that_surely_helped_is_no_finding(tmp_path: Path) -> None:
    make_run(tmp_path, "plain", 200, model=student(0.0), wrong=list(range(200)))
    make_run(tmp_path, "distilled", 150, model=student(0.9), teacher_errors=210, wrong=list(range(150)))
    assert [line for line in _findings(tmp_path) if "nothing to teach" in line] == []
