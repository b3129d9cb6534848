"""Names of a run's files, reading them, and writing so that a crash loses nothing. Text is UTF-8 in any locale."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIG_FILE = "config.yaml"
TEACHERS_FILE = "teachers.json"
METRICS_FILE = "metrics.json"
DETAILS_FILE = "details.json"
# Of a test that is not the run's own, see training.record.EvaluationScope.
OTHER_METRICS_FILE = "metrics-other.json"
OTHER_DETAILS_FILE = "details-other.json"
PREDICTIONS_FILE = "predictions.csv"
EVENT_FILES = "events.out.tfevents.*"
# Begins the tags of pictures in event files; TensorBoard sorts by name, and this comes after all curves.
PICTURE_TAGS = "validation/"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one whole.

    Args:
        path: The file to make or replace; its folder is made where it is missing.
        write: Given a path in the same folder, writes the content there.
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


def write_text(path: Path, text: str) -> None:
    """Write text atomically; what Python could not decode in a file's name is written as the bytes that it was."""
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda part: part.write_bytes(content))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        ValueError: If it is damaged.
        OSError: If it can't be read.
    """
    return _read_mapping(path, json.loads)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; its keys become text, and dates too.

    Raises:
        ValueError: If it is damaged.
        OSError: If it can't be read.
    """
    return _read_mapping(path, lambda text: json.loads(json.dumps(yaml.safe_load(text), default=str)))


def _read_mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:  # Any: a file may hold anything
    content = path.read_bytes()
    try:
        parsed = parse(content.decode())
    except Exception as error:  # a damaged file raises whatever its parser does, RecursionError and KeyError too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged: {reason}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} is damaged: expected a mapping, got {type(parsed).__name__}")
    return parsed


def shown(path: Path) -> str:
    """A path as text for people: its bytes may not be text in this locale."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def from_here(path: Path) -> Path:
    """A path as people type it: relative to the current folder where it lies below."""
    here, whole = Path.cwd(), path.absolute()
    return whole.relative_to(here) if whole.is_relative_to(here) else path


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
