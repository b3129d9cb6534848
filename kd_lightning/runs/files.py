"""Names of a run's files, and writing so that a crash loses nothing."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.yaml"
TEACHERS_FILE = "teachers.json"
METRICS_FILE = "metrics.json"
DETAILS_FILE = "details.json"
# Of a test that is not the run's own, see training.record.EvaluationScope.
OTHER_METRICS_FILE = "metrics-other.json"
OTHER_DETAILS_FILE = "details-other.json"
PREDICTIONS_FILE = "predictions.csv"
EVENT_FILES = "events.out.tfevents.*"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one whole.

    Args:
        path: The file to make or replace; its folder is made where it is missing.
        write: Given a path beside it, writes the content there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    flush(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text))


def flush(path: Path) -> None:
    """Have the operating system write a file or a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a nested configuration with their places, such as model.init_args.temperature."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
