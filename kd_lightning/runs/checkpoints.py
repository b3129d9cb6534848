"""Checkpoint files: where a run keeps them, and reading them without running code from them."""

import pickle
from pathlib import Path
from typing import Any

import torch

# Our entry in a checkpoint: "net" (class_path and init_args, or None) and, from the command line, "config".
RECORD_KEY = "kd_lightning"
# In that entry: the weights with which a run goes on, where state_dict holds averaged ones.
STEP_WEIGHTS = "step_weights"
CHECKPOINT_DIR = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"


def run_checkpoint(run: Path) -> Path:
    """The checkpoint that stands for a run: its best, or its last where there was no validation.

    Raises:
        FileNotFoundError: If the folder holds neither.
    """
    for name in (BEST, LAST):
        path = run / CHECKPOINT_DIR / name
        if path.is_file():
            return path
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
        ValueError: If the file is damaged, or holds objects that would run code when read.
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
    return checkpoint
