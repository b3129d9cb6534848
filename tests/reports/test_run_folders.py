"""A damaged file costs its run's figures, never the other runs'."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.reports.rows import group_runs, table_rows
from kd_lightning.reports.run_folders import Run, find_runs, read_run
from kd_lightning.reports.tables import cells_of

STUDENT = Path(__file__).parents[1] / "files" / "before_rooms" / "student"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("good", "bad"):
        shutil.copytree(STUDENT, tmp_path / name)
    return tmp_path / "bad"


def _read(run: Path) -> Run:
    """Read both runs, and check that the good one has its row."""
    runs = [read_run(folder) for folder in find_runs([str(run.parent)])]
    rows = table_rows(group_runs(runs))
    assert [783] in [row.errors[:1] for row in rows]
    assert len(cells_of(rows)) == len(rows)
    return next(each for each in runs if each.folder == run)


def _changed(file: Path, place: str, value: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    *keys, last = place.split(".")
    part = content
    for key in keys:
        part = part[key]
    if value is KeyError:
        del part[last]
    else:
        part[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("test", None, "it has no errors and examples"),
        ("test.errors", "12", "errors must be a count, got '12'"),
        ("test.errors", True, "errors must be a count, got True"),
        ("test.errors", -1, "errors must be a count, got -1"),
        ("test.examples", 0, "its examples and parameters must be above 0"),
        ("test.examples", float("nan"), "examples must be a count, got nan"),
        ("test.teacher_agreement", [1], "teacher_agreement must be a number, got [1]"),
        ("parameters", 0, "its examples and parameters must be above 0"),
        ("parameters", "many", "parameters must be a count, got 'many'"),
        ("teachers", 2.5, "teachers must be a count, got 2.5"),
        ("teacher_parameters", KeyError, "it has teachers without their errors and parameters"),
        ("train_seconds", {}, "train_seconds must be a number, got {}"),
        ("error_rate_interval", [1], "error_rate_interval must be two numbers, got [1]"),
        ("error_rate_interval", "ab", "error_rate_interval must be two numbers, got 'ab'"),
        ("costs", [1], "costs must be a mapping of mappings"),
        ("costs.net", None, "costs must be a mapping of mappings"),
        ("costs.net.flops", None, "flops must be a number, got None"),
    ],
)
def test_a_damaged_figure_is_named(place: str, value: Any, fault: str, run: Path) -> None:
    _changed(run / "metrics.json", place, value)
    found = _read(run)
    assert found.problem == f"metrics.json is damaged: {fault}"
    assert found.metrics == {}


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("tables", [], "tables must be a mapping"),
        ("tables.confusion", [[1, 2], [3]], "confusion must be a square of counts"),
        ("tables.confusion", [], "confusion must be a square of counts"),
        ("tables.teacher_confusion", [["a"]], "teacher_confusion must be a square of counts"),
        ("tables.reliability", {}, "reliability must be a list of bins"),
        ("tables.reliability", [{"count": 1}], "confidence must be a number, got None"),
    ],
)
def test_a_damaged_table_is_named(place: str, value: Any, fault: str, run: Path) -> None:
    _changed(run / "details.json", place, value)
    found = _read(run)
    assert found.problem == f"details.json is damaged: {fault}"
    assert found.details == {}
    assert found.metrics


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "expected a mapping, got NoneType"),
        (b"[1]", "expected a mapping, got list"),
        (b"a: [b", "while parsing"),
        (b"a: \xff", "'utf-8' codec can't decode"),
        (b"a: !!bool maybe", "'maybe'"),  # a KeyError
        (b"a: 2024-99-99", "month must be in 1..12"),
        (b"&a [*a]", "Circular reference"),
        (b"a: &a {b: *a}", "Circular reference"),
        (b"a: " + 2000 * b"[", "maximum recursion depth exceeded"),
    ],
)
def test_a_damaged_configuration_is_named(content: bytes, fault: str, run: Path) -> None:
    (run / "config.yaml").write_bytes(content)
    found = _read(run)
    assert found.problem is not None
    assert found.problem.startswith(f"config.yaml is damaged: {fault}")
    assert found.config == {}


@pytest.mark.parametrize("content", [b"", b"{", b"3", 100_000 * b"[", b'{"a": ' + 5000 * b"9" + b"}", b"\xff"])
@pytest.mark.parametrize("name", ["metrics.json", "details.json"])
def test_a_damaged_json_file_is_named(name: str, content: bytes, run: Path) -> None:
    (run / name).write_bytes(content)
    found = _read(run)
    assert found.problem is not None
    assert found.problem.startswith(f"{name} is damaged: ")


def test_keys_and_dates_of_a_configuration_become_text(run: Path) -> None:
    (run / "config.yaml").write_bytes(b"{1: 2024-05-06, null: x, z: 1}")
    assert _read(run).config == {"1": "2024-05-06", "null": "x", "z": 1}


def test_a_test_on_other_data_alone_is_said(run: Path) -> None:
    (run / "metrics.json").rename(run / "metrics-other.json")
    assert _read(run).problem == "not tested on all of its own data"
