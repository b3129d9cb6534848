"""Singular and plural."""

import pytest

from kd_lightning.runs.texts import counted, noun_for


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
