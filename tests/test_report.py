"""Runs that differ by their seed alone share a row; nothing else does."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_lightning.report import find_runs, group_runs, read_run, run_report


def _run(root: Path, name: str, errors: int | None, seed: int = 0, **metrics: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    temperature = metrics.pop("temperature", 4.0)
    config = {"seed_everything": seed, "run_dir": str(folder), "model": {"init_args": {"temperature": temperature}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if errors is not None:
        test = {"errors": errors, "examples": 1000, "teacher_agreement": 0.9, "teacher_errors": 7}
        record = {"test": test, "parameters": 100, "train_seconds": 2.0, **metrics}
        (folder / "metrics.json").write_text(json.dumps(record))
    return folder


def test_rows_over_seeds(tmp_path: Path) -> None:
    for seed, errors in enumerate([10, 12, 17]):
        _run(tmp_path, f"taught-{seed}", errors, seed, teachers=3, teacher_parameters=500)
    _run(tmp_path, "hotter", 9, temperature=8.0)
    _run(tmp_path, "unfinished", None, temperature=9.0)
    runs = [read_run(folder) for folder in find_runs([str(tmp_path)])]
    hotter, ensemble, taught, unfinished = group_runs(runs)
    assert (hotter.name, hotter.runs, hotter.errors) == ("hotter", 1, [9])
    assert (ensemble.name, ensemble.errors, ensemble.parameters) == ("ensemble of 3 teachers", [7], 500)
    assert (taught.name, taught.runs, taught.errors, taught.compression) == ("taught", 3, [10, 12, 17], 5.0)
    assert taught.cells()["errors"] == "13.0 ± 3.6"
    assert taught.cells()["error %"] == "1.30 ± 0.36"
    assert unfinished.cells()["errors"] == "not tested"


def test_files_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run(tmp_path / "runs", "a", 5)
    run_report([str(folder)])
    with (tmp_path / "runs" / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["name"], rows[0]["errors"]) == ("a", "5")
    assert "| a | – | 1 |" in (tmp_path / "runs" / "report.md").read_text()
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"a file of the run .* is damaged"):
        run_report([str(folder)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        find_runs([str(tmp_path / "empty")])
    with pytest.raises(FileNotFoundError, match="no run folder"):
        find_runs([str(tmp_path / "nowhere")])
