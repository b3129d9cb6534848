"""Run folders with made-up results."""

import json
from pathlib import Path
from typing import Any

import yaml

_ONE = {"parameters": 9, "file_bytes": 99, "flops": 18, "single_ms": 0.1, "batch_ms": 1.0, "batch_size": 1000}
COSTS = {"net": _ONE, "teachers": {**_ONE, "parameters": 90}}


def make_run(
    root: Path,
    name: str,
    errors: int | None,
    seed: int = 0,
    temperature: float = 4.0,
    examples: int = 1000,
    model: dict[str, Any] | None = None,
    wrong: list[int] | None = None,
    **metrics: Any,
) -> Path:
    """A run's folder with its configuration and, unless errors is None, its test figures.

    Args:
        root: Folder of the run's folder.
        name: The run's folder.
        errors: Its test errors.
        seed: Its seed.
        temperature: An argument of its module, where `model` is not given.
        examples: How many were tested.
        model: The configuration's part of that name.
        wrong: Rows of the wrong answers.
        metrics: What replaces or joins the usual figures; `teacher_errors` among those of the test.
    """
    folder = root / name
    folder.mkdir(parents=True)
    model = {"init_args": {"temperature": temperature}} if model is None else model
    config = {"seed_everything": seed, "run_dir": str(folder), "model": model, **metrics.pop("config", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if errors is not None:
        test = {"errors": errors, "examples": examples, "teacher_agreement": 0.9}
        test["teacher_errors"] = metrics.pop("teacher_errors", 7)
        record = {"test": test, "parameters": 100, "train_seconds": 2.0, **metrics}
        (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    if wrong is not None:
        (folder / "details.json").write_text(json.dumps({"tables": {"wrong_rows": wrong}}), encoding="utf-8")
    return folder


def teacher(**net: Any) -> dict[str, Any]:
    """The configured module of a teacher."""
    return {"class_path": "kd_lightning.TeacherModule", "init_args": {"net": {"class_path": "N", "init_args": net}}}


def student(soft_weight: float, **arguments: Any) -> dict[str, Any]:
    """The configured module of a student, plain with soft_weight 0."""
    given = {"student": {"class_path": "N", "init_args": {"hidden": 3}}, "soft_weight": soft_weight, **arguments}
    return {"class_path": "kd_lightning.DistillModule", "init_args": given}
