"""What a run came to, for people."""

import io
from typing import Any

from rich.console import Console

from kd_lightning.cli.outcome import lines_of_fit, table_of_test

TEST = {"errors": 125, "examples": 1000, "accuracy": 0.875, "nll": 0.41164988, "ece": 0.0629947}


def _text(record: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(table_of_test(record, "runs/a, best.ckpt"))
    return out.getvalue()


def _record(**more: Any) -> dict[str, Any]:
    return {"test": TEST | more, "unit": "images", "error_rate_interval": [0.1061, 0.1470], "teachers": 1}


def test_a_student_is_compared_with_its_best_teacher() -> None:
    records = [{"errors": count, "examples": 400, "split": "validation"} for count in (35, 20)]
    assert lines_of_fit(records, 0.9, "images", {}) == [
        "validation: the student makes 40 errors on 400 images, the best of 2 teachers 20"
    ]


def test_one_error_is_no_plural() -> None:
    records = [{"errors": 0, "examples": 400, "split": "validation"}]
    assert lines_of_fit(records, 399 / 400, "images", {}) == [
        "validation: the student makes 1 error on 400 images, its teacher 0"
    ]


def test_a_teacher_that_is_no_better_has_nothing_left_to_teach() -> None:
    (first, second) = lines_of_fit([{"errors": 35, "examples": 400, "split": "validation"}], 1 - 35 / 400, "frames", {})
    assert first == "validation: the student makes 35 errors on 400 frames, its teacher 35"
    assert second.startswith("the student is as good as its teacher: it has nothing left to learn from it")


def test_a_student_that_lost_to_the_plain_one_is_not_praised() -> None:
    records = [{"errors": 72, "examples": 400, "split": "validation"}]
    (_, line) = lines_of_fit(records, 1 - 69 / 400, "images", {"plain-0": 39})
    assert line == "the student makes 69 errors, the plain student plain-0 makes 39: distillation did harm here"
    (_, line) = lines_of_fit(records, 1 - 40 / 400, "images", {"plain-0": 39, "plain-1": 38})
    assert line == "the student makes 40 errors, 2 plain students make 38.5 on average: distillation did not help here"
    (_, line) = lines_of_fit(records, 1 - 38 / 400, "images", {"plain-0": 39})
    assert line.startswith("the student is as good as its teacher")


def test_nothing_is_compared_across_splits() -> None:
    records = [{"errors": 35, "examples": 400, "split": "training"}]
    assert lines_of_fit(records, 0.9, "images", {}) == []
    assert lines_of_fit([{"errors": 35, "examples": 400, "split": "validation"}], None, "images", {}) == []
    assert lines_of_fit([], 0.9, "images", {}) == []


def test_errors_are_counts_with_their_interval() -> None:
    shown = _text(_record())
    assert shown.strip().startswith("test set: runs/a, best.ckpt")
    assert "125 of 1,000 images" in shown
    assert "12.50 %, 10.61 to 14.70 %" in shown
    assert "0.4116" in shown
    assert "teacher" not in shown


def test_an_error_rate_without_an_interval_is_shown() -> None:
    shown = _text(_record() | {"error_rate_interval": None})
    assert "12.50 %" in shown
    assert "interval" not in shown


def test_teachers_and_figures_of_the_data_are_shown() -> None:
    shown = _text(_record(teacher_errors=76, teacher_agreement=0.918, digit_errors=12.0))
    assert "teacher's errors" in shown
    assert "91.80 %" in shown
    assert "digit_errors" in shown
