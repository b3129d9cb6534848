"""Finding and loading teachers: runs, checkpoints, modules, and weights from elsewhere."""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from glob import glob, has_magic  # Path.glob takes no absolute patterns
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kd_lightning.nets.description import build_net
from kd_lightning.runs.checkpoints import (
    CHECKPOINT_DIR,
    RECORD_KEY,
    read_checkpoint,
    run_checkpoint,
    run_folder,
)
from kd_lightning.runs.files import CONFIG_FILE
from kd_lightning.teachers.ensemble import Teacher
from kd_lightning.teachers.logits_file import SUFFIXES, load_logits

TeacherSpec = str | os.PathLike[str] | nn.Module | Iterable[str | os.PathLike[str] | nn.Module]


class PretrainedNet(nn.Module):
    """A net with weights from a file, for teachers that this package did not train.

    Args:
        net: Any module that maps inputs to logits (batch, classes).
        weights: A state dict of `net`, written by torch.save or as safetensors' .safetensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not fit the net.
    """

    def __init__(self, net: nn.Module, weights: str) -> None:
        super().__init__()
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"no weights file {path}")
        _load_state(net, _read_weights(path), path)
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the wrapped net."""
        logits: Tensor = self.net(inputs)
        return logits


def load_teachers(teachers: TeacherSpec) -> list[Teacher]:
    """Find and load teachers.

    Args:
        teachers: A checkpoint, a run's folder (its best checkpoint, or its last where there was no validation),
            a glob of either, a file of logits (see `LogitsFile`), a module, or a list of such. Modules are copied: the
            user's own stay as they are.

    Raises:
        FileNotFoundError: If nothing matches.
        ValueError: If a checkpoint is damaged or can't be rebuilt, two files of one run match, or a module can't be
            copied.
    """
    loaded = []
    for teacher in listed_teachers(teachers):
        if isinstance(teacher, nn.Module):
            loaded.append(Teacher(_copied(teacher), type(teacher).__qualname__, {}))
        else:
            found = teacher_checkpoints(teacher)
            loaded += [load_logits(path) if path.suffix in SUFFIXES else load_net(path) for path in found]
    return loaded


def listed_teachers(teachers: TeacherSpec) -> list[str | nn.Module]:
    """The paths and modules that were given as teachers, one by one.

    A module is one teacher, even where it is iterable as nn.Sequential is; only an nn.ModuleList counts as a list.

    Raises:
        ValueError: If something else was given.
    """
    whole = isinstance(teachers, nn.Module) and not isinstance(teachers, nn.ModuleList)
    given: object = [teachers] if whole or isinstance(teachers, str | os.PathLike) else teachers
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise ValueError(f"teachers must be paths, modules or a list of them, got {type(given).__name__}")
    listed = [os.fspath(teacher) if isinstance(teacher, os.PathLike) else teacher for teacher in given]
    for teacher in listed:
        if not isinstance(teacher, str | nn.Module):
            raise ValueError(f"each teacher must be a path or a module, got {type(teacher).__name__} {teacher!r}")
    return listed


def _copied(net: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except Exception as error:  # a net may hold anything
        raise ValueError(
            f"the teacher {type(net).__qualname__} can't be copied ({error}); expected a module that copy.deepcopy "
            "takes, since a teacher is frozen while the user's own module stays as it is"
        ) from error


def refuse_shared_weights(student: nn.Module, teachers: Sequence[str | nn.Module]) -> None:
    """Refuse a teacher whose weights would change while the student trains.

    Raises:
        ValueError: If a teacher is the student itself, or shares parameters with it.
    """
    trained = {_place(parameter) for parameter in student.parameters()} - {0}
    for number, teacher in enumerate(teachers):
        if not isinstance(teacher, nn.Module):
            continue
        shared = [name for name, parameter in teacher.named_parameters() if _place(parameter) in trained]
        if shared:
            whole = teacher is student or len(shared) == len(list(teacher.parameters()))
            what = "the student is its own teacher" if whole else f"teacher {number} shares {shared} with the student"
            raise ValueError(
                f"{what}: expected a teacher that stays as it is while the student trains; "
                "pass copy.deepcopy(net) for one of them"
            )


def _place(parameter: nn.Parameter) -> int:
    """Where a parameter's numbers lie, 0 where it has none yet."""
    return 0 if is_lazy(parameter) else parameter.untyped_storage().data_ptr()


def teacher_checkpoints(pattern: str) -> list[Path]:
    """The checkpoint files that a path or glob means, sorted.

    Raises:
        FileNotFoundError: If nothing matches.
        ValueError: If two files of one run match.
    """
    if Path(pattern).exists() or not has_magic(pattern):  # a folder's name may hold brackets
        found = [Path(pattern)] if Path(pattern).exists() else []
    else:
        matches = sorted(map(Path, glob(pattern, recursive=True)))  # noqa: PTH207
        found = [match for match in matches if match.exists() and _may_teach(match)]  # there may be reports and notes
    if not found:
        raise FileNotFoundError(
            f"no teacher checkpoint matches {pattern}; expected a run's folder or a checkpoint: train a teacher first, "
            "python -m kd_lightning fit with a TeacherModule"
        )
    files = [run_checkpoint(path) if path.is_dir() else path for path in found]
    first_of_run: dict[Path, Path] = {}
    for file in files:
        run = run_folder(file)
        if run is not None and first_of_run.setdefault(run, file) != file:
            raise ValueError(
                f"{pattern} matches two checkpoints of one run, {first_of_run[run]} and {file}; "
                "name the run's folder or one file"
            )
    return files


def _may_teach(path: Path) -> bool:
    """Whether something that a glob finds is a run, whole or not, or may be a checkpoint."""
    if path.is_dir():
        return (path / CHECKPOINT_DIR).is_dir() or (path / CONFIG_FILE).is_file()
    if path.name.endswith(".val.npy"):  # belongs to a file of logits
        return False
    return path.suffix not in {".html", ".md", ".csv", ".json", ".yaml", ".png", ".onnx", ".pt2"}


def load_net(path: Path) -> Teacher:
    """Rebuild the net of a checkpoint that this package wrote, a teacher's or a student's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not say how its net is built.
    """
    checkpoint = read_checkpoint(path)
    record = checkpoint.get(RECORD_KEY, {})
    description = record.get("net")
    if description is None:
        raise ValueError(
            f"checkpoint {path} does not say how its net is built; pass the net itself: "
            "teachers=[TeacherModule.load_from_checkpoint(path, net=net).net]"
        )
    net = build_net(description)
    weights = {
        name.removeprefix("net."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("net.")
    }
    _load_state(net, weights, path)
    return Teacher(net, str(path), record.get("data", {}))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # comes with the extra kd_lightning[safetensors]

        return load_file(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise ValueError(f"weights file {path} is damaged or holds more than tensors") from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict):
        raise ValueError(f"weights file {path} must hold a state dict, got {type(weights).__name__}")
    return weights


def _load_state(net: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        problem = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"the weights in {path} do not fit {type(net).__qualname__}: {problem}") from error
