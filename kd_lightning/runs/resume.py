"""A run's folder: its files, which checkpoint is meant, what a resumed run may change."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from kd_lightning.runs.checkpoints import CHECKPOINT_DIR, LAST, RECORD_KEY, read_checkpoint, run_checkpoint, run_folder
from kd_lightning.runs.config_files import CONFIG_OPTIONS, option_values
from kd_lightning.runs.files import (
    CONFIG_FILE,
    DETAILS_FILE,
    EVENT_FILES,
    METRICS_FILE,
    OTHER_DETAILS_FILE,
    OTHER_METRICS_FILE,
    PREDICTIONS_FILE,
    TEACHERS_FILE,
    flat,
)

DEFAULT_DATA = "kd_lightning.MNISTDataModule"
EVALUATIONS = ("validate", "test", "predict")
# Files of evaluations in a run's folder; they no longer hold once the weights are trained further.
RESULT_FILES = (METRICS_FILE, DETAILS_FILE, OTHER_METRICS_FILE, OTHER_DETAILS_FILE, PREDICTIONS_FILE)
# What a resumed run may change: its length, where it runs, what it shows, and where its teachers are. Fingerprints
# check that they are the same, see modules/teacher_setup.py.
MAY_CHANGE = (
    "run_dir",
    "save_every",
    "pictures_every",
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
    "data.init_args.cache_dir",
    "data.init_args.limit_gb",
    "data.init_args.device_resident",
    "data.init_args.num_workers",
    "data.init_args.data.init_args.data_dir",
    "data.init_args.data.init_args.num_workers",
    "model.init_args.teachers_must_beat_chance",
    "model.init_args.teachers",
    "model.init_args.store.folder",
    "model.init_args.store.limit_gb",
)
# Options that older runs did not have, or that had another default, with the value that gives the older behaviour.
ADDED_OPTIONS = {
    "data.init_args.label_fraction": 1.0,
    "model.init_args.label_smoothing": 0.0,
    "model.init_args.soft_weight": 0.9,
}


def run_files(run: Path) -> Iterator[Path]:
    """The files that a run leaves in its folder; nothing else there is ever touched."""
    for pattern in (
        CONFIG_FILE,
        TEACHERS_FILE,
        *RESULT_FILES,
        "hparams.yaml",
        EVENT_FILES,
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


def newest_whole_checkpoint(run: Path, log_line: Callable[[str], None]) -> Path | None:
    """The newest readable checkpoint of a run, `last.ckpt` first; None where there is none at all.

    Args:
        run: The run's folder.
        log_line: Called with a line about each file that can't be read.

    Raises:
        ValueError: If there are checkpoints and none can be read.
    """
    folder = run / CHECKPOINT_DIR
    candidates = sorted(folder.glob("*.ckpt"), key=lambda p: (p.name == LAST, p.stat().st_mtime), reverse=True)
    for path in candidates:
        try:
            read_checkpoint(path)
        except ValueError as error:
            log_line(f"{error}; looking for an older one")
            continue
        return path
    if candidates:
        raise ValueError(f"no checkpoint in {folder} can be read; start over with --overwrite true")
    return None


def forbidden_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The changes that a resumed run must not make, one text per value."""
    old, new = dict(flat(before)), dict(flat(now))
    old |= {key: value for key, value in ADDED_OPTIONS.items() if key in new and key not in old}
    return [
        f"{key}: the run has {old.get(key)!r}, asked for {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _may_change(key) and not _is_kept(key, new.get(key))
    ]


def _may_change(key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in MAY_CHANGE)


def _is_kept(key: str, value: object) -> bool:
    """Whether a value means what the run has: a net's mean or std that is left to the data comes with its weights."""
    return value is None and key.startswith("model.") and key.endswith((".init_args.mean", ".init_args.std"))


def refuse_other_module(checkpoint: dict[str, Any], path: Path, asked: str) -> None:
    """Refuse a checkpoint of another kind of module.

    Args:
        checkpoint: Its content.
        path: Its file.
        asked: class_path of the configured module.

    Raises:
        ValueError: If the kinds differ.
    """
    saved = checkpoint.get(RECORD_KEY, {}).get("module")
    if saved is not None and saved != asked.rpartition(".")[2]:
        raise ValueError(f"checkpoint {path} holds a {saved}, but the configuration asks for {asked}")


def refuse_other_config(checkpoint: dict[str, Any], path: Path, config: dict[str, Any]) -> None:
    """Refuse to resume with another configuration than the run's own, except for values that may change.

    Args:
        checkpoint: Content of the checkpoint to resume.
        path: Its file.
        config: The resolved configuration.

    Raises:
        ValueError: If they differ, or the checkpoint has none.
    """
    saved = checkpoint.get(RECORD_KEY, {}).get("config")
    if saved is None:
        raise ValueError(
            f"checkpoint {path} was not written by python -m kd_lightning fit; it can be tested, not resumed"
        )
    changed = forbidden_changes(saved, config)
    if changed:
        raise ValueError(
            f"can't resume {path} with another configuration ({'; '.join(changed)}); "
            "give the run's own values or start a new run"
        )


def await_next_second(run: Path) -> None:
    """Wait, a second at most, until a new event file of the run is named after all older ones.

    TensorBoard reads event files in the order of their names, which begin with the second and go on with the process
    number. A resumed run's file holds the step from which the older ones no longer count, so it must come after them.

    Args:
        run: The run's folder.
    """
    stamps = [int(file.name.split(".")[3]) for file in run.glob(EVENT_FILES) if file.name.split(".")[3].isdigit()]
    if stamps and int(time.time()) == max(stamps):
        time.sleep(max(0.0, max(stamps) + 1 - time.time()))


def check_strategy(strategy: object) -> None:
    """Refuse strategies that cut a net into pieces: its checkpoint could neither teach nor be exported.

    Args:
        strategy: A name of Lightning's, or the class_path of one.

    Raises:
        ValueError: If it is one of those.
    """
    name = str(strategy).lower().replace("_", "")
    if any(word in name for word in ("fsdp", "deepspeed", "modelparallel", "xla")):
        raise ValueError(
            f"trainer.strategy must keep the net whole, got {strategy}: use auto or ddp, "
            "or ddp_fork on the CPU and in notebooks"
        )


def with_config_of_run(arguments: Sequence[str]) -> list[str]:
    """Take the run's own configuration for an evaluation that names none.

    Raises:
        FileNotFoundError: If the run is not there.
        ValueError: If no net is named at all.
    """
    if not arguments or arguments[0] not in EVALUATIONS:
        return list(arguments)
    names = {argument.split("=")[0] for argument in arguments}
    if names & {*CONFIG_OPTIONS, "-h", "--help"}:
        return list(arguments)
    config = _config_of_run(arguments)
    if config is not None:
        return [arguments[0], "--config", str(config), *arguments[1:]]
    if any(name.startswith(("--model", "--print_config")) or name.endswith(".help") for name in names):
        return list(arguments)
    given = option_values(arguments, ["--ckpt_path"])
    got = f", got {given[-1]}, which belongs to no run with a {CONFIG_FILE}; or name one with --config" if given else ""
    raise ValueError(
        f"{arguments[0]} needs a trained net: --ckpt_path with a run's folder or a file of its checkpoints{got}"
    )


def _config_of_run(arguments: Sequence[str]) -> Path | None:
    """The configuration of the run whose checkpoint is named, None where there is none."""
    given = option_values(arguments, ["--ckpt_path"])
    if not given:
        return None
    path = Path(given[-1])
    run: Path | None
    if given[-1] in {"best", "last"}:
        runs = option_values(arguments, ["--run_dir"])
        run = Path(runs[-1]) if runs else None
    elif not path.exists():
        raise FileNotFoundError(
            f"no run and no checkpoint at {path}; expected a run's folder or a file of its checkpoints"
        )
    else:
        run = path if path.is_dir() else run_folder(path)
    return run / CONFIG_FILE if run is not None and (run / CONFIG_FILE).is_file() else None


def with_data_named(arguments: Sequence[str]) -> list[str]:
    """Insert `--data MNISTDataModule` at the start, so that a configuration or argument can replace it.

    As the parser's default it would pass its options, such as batch_size, to the class that replaces it.
    """
    at = next((n for n, argument in enumerate(arguments) if argument in ("fit", *EVALUATIONS)), None)
    if at is None or any(argument.split("=")[0] == "--data" for argument in arguments):
        return list(arguments)
    # Later arguments replace it, but it would replace the data of a configuration before the subcommand.
    before = arguments[:at]
    for file in option_values(before, CONFIG_OPTIONS):
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # the parser reports the error
        if isinstance(content, dict) and (content.get("data") or (content.get(arguments[at]) or {}).get("data")):
            return list(arguments)
    return [*arguments[: at + 1], "--data", DEFAULT_DATA, *arguments[at + 1 :]]
