"""Checkpoint files: where a run keeps them, and reading them without running code from them."""

import pickle
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

# Our entry in a checkpoint: "net" (class_path and init_args, or None) and, from the command line, "config".
RECORD_KEY = "kd_lightning"
# In that entry: the weights with which a run goes on, where state_dict holds averaged ones.
STEP_WEIGHTS = "step_weights"
# Kinds of the entries that are used here; a checkpoint may lack some, and have others.
_KINDS: dict[str, tuple[type, ...]] = {
    "state_dict": (dict,),
    "global_step": (int,),
    "epoch": (int,),
    "pytorch-lightning_version": (str,),
    "hyper_parameters": (dict,),
    "callbacks": (dict,),
    "loops": (dict,),
    "optimizer_states": (list,),
    "lr_schedulers": (list,),
    RECORD_KEY: (dict,),
}
_RECORD_KINDS: dict[str, tuple[type, ...]] = {
    "module": (str,),
    "net": (dict, NoneType),
    "config": (dict,),
    "data": (dict,),
    "teachers": (list, NoneType),
    "teacher_weights": (list,),
    "epochs": (int, float, NoneType),
    "validation": (dict, NoneType),
    "train_seconds": (int, float),
    "hardware": (str,),
    "planned_steps": (int, float, NoneType),
    STEP_WEIGHTS: (dict,),
}
CHECKPOINT_DIR = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
_NAMED = 6  # runs that an error names, at most


def run_checkpoint(run: Path) -> Path:
    """The checkpoint that stands for a run: its best, or its last where there was no validation.

    Raises:
        FileNotFoundError: If the folder holds neither.
    """
    for name in (BEST, LAST):
        path = run / CHECKPOINT_DIR / name
        if path.is_file():
            return path
    runs = sorted(folder.parent.name for folder in run.glob(f"*/{CHECKPOINT_DIR}"))
    if runs and not (run / CHECKPOINT_DIR).exists():
        more = ", ..." * (len(runs) > _NAMED)
        raise FileNotFoundError(
            f"{run} is a folder of runs, expected one run; name one of: {', '.join(runs[:_NAMED])}{more}"
        )
    raise FileNotFoundError(f"no checkpoint in {run / CHECKPOINT_DIR}; expected {BEST} or {LAST} there")


def run_folder(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to, None where it lies elsewhere."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == CHECKPOINT_DIR else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted.

    Args:
        path: A file written by Lightning.

    Returns:
        Its entries, such as state_dict and hyper_parameters.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds objects that would run code when read, or entries of other kinds than
            a checkpoint's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path} is damaged or holds objects other than tensors and plain values"
        ) from error
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise ValueError(f"checkpoint {path} is damaged and can't be read; use another or train again") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    problem = _other_kind(checkpoint, _KINDS) or _other_kind(checkpoint.get(RECORD_KEY, {}), _RECORD_KINDS)
    if problem:
        raise ValueError(f"checkpoint {path} is damaged: {problem}")
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(value, Tensor) and not str(name).endswith("_extra_state"):  # which may be anything
            raise ValueError(f"checkpoint {path} is damaged: state_dict.{name} is {_kind(value)}, expected a tensor")
    return checkpoint


def _other_kind(entries: dict[str, Any], kinds: dict[str, tuple[type, ...]]) -> str:
    """What entry is of another kind than it should be, and how; empty where none is."""
    for name, allowed in kinds.items():
        if name in entries and not isinstance(entries[name], allowed):
            return f"{name} is {_kind(entries[name])}, expected {' or '.join(kind.__name__ for kind in allowed)}"
    return ""


def _kind(value: object) -> str:
    """A value's type with its beginning, in a few words."""
    return f"a {type(value).__name__} ({value!r:.40})"
