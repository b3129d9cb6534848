"""What a subcommand starts from: the checkpoint that it reads, and for a fit a folder that no other run uses."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from kd_lightning.runs.checkpoints import BEST, LAST, read_checkpoint
from kd_lightning.runs.resume import (
    named_checkpoint,
    newest_whole_checkpoint,
    refuse_other_config,
    refuse_other_module,
    run_files,
)
from kd_lightning.teachers.check import refuse_own_teacher
from kd_lightning.training.signals import only_fit_in


class ReadCheckpoint(NamedTuple):
    """A checkpoint and what stands in it.

    Attributes:
        path: Its file.
        content: What stands in it.
    """

    path: Path
    content: dict[str, Any]


def resumed_checkpoint(run: Path, given: str, module: str, config: dict[str, Any]) -> ReadCheckpoint | None:
    """Read the checkpoint that --ckpt_path names.

    Args:
        run: The run's folder.
        given: The value of --ckpt_path.
        module: Class path of the configured module.
        config: The resolved configuration.

    Returns:
        None where `last` finds nothing, so that a job script can always pass it.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it belongs to another module or to another configuration.
    """
    path = newest_whole_checkpoint(run, rank_zero_info) if given == "last" else named_checkpoint(run, given, LAST)
    if path is None:
        return None
    content = read_checkpoint(path)
    refuse_other_module(content, path, module)
    refuse_other_config(content, path, config)
    rank_zero_info(f"resuming {path} after step {content['global_step']}")
    return ReadCheckpoint(path, content)


def evaluated_checkpoint(run: Path, given: str, module: str) -> ReadCheckpoint:
    """Read the checkpoint that `validate`, `test` or `predict` evaluates.

    Args:
        run: The run's folder.
        given: The value of --ckpt_path.
        module: Class path of the configured module.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it belongs to another module.
    """
    path = named_checkpoint(run, given, BEST)
    content = read_checkpoint(path)
    refuse_other_module(content, path, module)
    return ReadCheckpoint(path, content)


def claim_folder(
    run: Path, exit_stack: ExitStack, *, resumes: str | None, overwrite: bool, teachers: Any
) -> list[Path]:
    """Lock a run's folder for a fit.

    Args:
        run: The run's folder.
        exit_stack: Releases the lock when the fit ends.
        resumes: The value of --ckpt_path; None or empty for a new run.
        overwrite: Whether the fit replaces a run that is there.
        teachers: The configured teachers (Any: a configuration's value).

    Returns:
        The files of an older run, which this fit replaces.

    Raises:
        BlockingIOError: If another fit runs in the folder.
        FileExistsError: If the folder holds a run that the fit neither resumes nor replaces, or a teacher of this fit
            lies in the run that it replaces.
    """
    exit_stack.enter_context(only_fit_in(run))
    leftovers = list(run_files(run))
    if overwrite:
        refuse_own_teacher(run, teachers)
        return leftovers
    if leftovers and not (resumes and _is_own(run, resumes)):
        raise FileExistsError(
            f"{run} already holds a run; resume it with --ckpt_path last, "
            "start over with --overwrite true, or choose another --run_dir"
        )
    return []


def _is_own(run: Path, given: str) -> bool:
    """Whether the checkpoint that --ckpt_path names lies in the run's own folder."""
    path = Path(given).absolute()
    return given in {"last", "best"} or run.absolute() in (path, *path.parents)
