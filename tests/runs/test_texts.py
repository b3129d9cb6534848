"""Singular and plural, and lines that fit a terminal."""

import io
import os
import sys
from pathlib import Path

import pytest

from kd_lightning.runs.texts import counted, noun_for, wrapped


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 errors"), (1, "1 error"), (2, "2 errors"), (1234, "1,234 errors")]
)
def test_a_noun_fits_its_count(count: int, expected: str) -> None:
    assert counted(count, "error") == expected


def test_a_plural_of_its_own() -> None:
    assert counted(1, "pass", "passes") == "1 pass"
    assert counted(3, "pass", "passes") == "3 passes"


@pytest.mark.parametrize(("count", "expected"), [(1.0, "epoch"), (0.5, "epochs"), (float("inf"), "epochs")])
def test_only_the_noun(count: float, expected: str) -> None:
    assert noun_for(count, "epoch") == expected


def test_lines_are_broken_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 24)))
    text = "written: runs/a-b, report.html\nnext: python -m kd_lightning test\nshort\n"
    broken = "written: runs/a-b,\nreport.html\nnext: python -m kd_lightning test\nshort\n"
    assert wrapped(text, sys.__stdout__) == broken
    assert wrapped("report-pictures/in/a/long/folder it", sys.__stdout__) == "report-pictures/in/a/long/folder\nit"
    assert wrapped(text, None) == text


def test_elsewhere_a_line_stays_a_line(tmp_path: Path) -> None:
    text = "word " * 100
    with (tmp_path / "log").open("w") as file:
        assert wrapped(text, file) == wrapped(text, io.StringIO()) == text
