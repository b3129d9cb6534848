"""Each test works in a folder of its own, so that nothing lands in the checkout."""

import gc
from pathlib import Path

import pytest


def pytest_collection_finish() -> None:
    """Spare the garbage collector, which runs after each command of a test, what is imported, as `__main__` does."""
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # or tables would be as wide as the terminal
