"""A run's folder: what lies in it, which checkpoint is meant, what a resumed run may change, safe writing."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kd_lightning.checkpoints import CHECKPOINT_DIR, LAST, read_checkpoint, run_checkpoint

CONFIG_FILE = "config.yaml"
TEACHERS_FILE = "teachers.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"

# What a resumed run may change: its length, where it runs, and what it shows.
MAY_CHANGE = (
    "run_dir",
    "save_every",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.callbacks",
    "data.init_args.data_dir",
    "data.init_args.device_resident",
    "model.init_args.store.folder",
    "model.init_args.store.limit_gb",
)


def run_files(run: Path) -> Iterator[Path]:
    """The files that a run leaves in its folder; nothing else there is ever touched."""
    for pattern in (
        CONFIG_FILE,
        TEACHERS_FILE,
        METRICS_FILE,
        PREDICTIONS_FILE,
        "hparams.yaml",
        "events.out.tfevents.*",
        f"{CHECKPOINT_DIR}/*.ckpt",
    ):
        yield from run.glob(pattern)


def named_checkpoint(run: Path, given: str, preferred: str) -> Path:
    """The file that `best`, `last`, a run's folder or a path means.

    Args:
        run: Folder of the run that `best` and `last` belong to.
        given: What the user wrote.
        preferred: Name of the file that stands for a run's folder, where it is there.

    Raises:
        FileNotFoundError: If a run's folder holds no checkpoint.
    """
    if given in {"best", "last"}:
        return run / CHECKPOINT_DIR / f"{given}.ckpt"
    path = Path(given)
    if not path.is_dir():
        return path
    favourite = path / CHECKPOINT_DIR / preferred
    return favourite if favourite.is_file() else run_checkpoint(path)


def newest_whole_checkpoint(run: Path, say: Callable[[str], None]) -> Path | None:
    """The newest readable checkpoint of a run, `last.ckpt` first; None where there is none at all.

    Args:
        run: The run's folder.
        say: Called with a line about each file that can't be read.

    Raises:
        ValueError: If there are checkpoints and none can be read.
    """
    folder = run / CHECKPOINT_DIR
    candidates = sorted(folder.glob("*.ckpt"), key=lambda p: (p.name == LAST, p.stat().st_mtime), reverse=True)
    for path in candidates:
        try:
            read_checkpoint(path)
        except ValueError as error:
            say(f"{error}; looking for an older one")
            continue
        return path
    if candidates:
        raise ValueError(f"no checkpoint in {folder} can be read; start anew with --overwrite true")
    return None


def forbidden_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a resumed run's configuration changes though it may not, one text per value."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: the run has {old.get(key)!r}, asked for {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
    ]


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


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
