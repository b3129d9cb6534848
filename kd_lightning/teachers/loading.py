"""Finding and loading teachers: runs, checkpoints, modules, and weights from elsewhere."""

import copy
import os
from glob import glob, has_magic  # Path.glob takes no absolute patterns
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_lightning.nets.adapted import AdaptedNet
from kd_lightning.nets.description import build_net
from kd_lightning.runs.checkpoints import (
    CHECKPOINT_DIR,
    RECORD_KEY,
    read_checkpoint,
    run_checkpoint,
    run_folder,
)
from kd_lightning.runs.files import CONFIG_FILE
from kd_lightning.teachers.ensemble import LoadedTeacher
from kd_lightning.teachers.logits_file import SUFFIXES, load_logits
from kd_lightning.teachers.named import NamedTeacher, Teacher, TeacherSpec, listed_teachers


class PretrainedNet(nn.Module):
    """A net with weights from a file; in `teachers` better a `Teacher`, which reads it when a fit begins.

    Args:
        net: Any module that maps inputs to logits (batch, classes).
        weights: A state dict of `net`, written by torch.save or as safetensors' .safetensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not fit the net.
    """

    def __init__(self, net: nn.Module, weights: str) -> None:
        super().__init__()
        load_weights(net, Path(weights))
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the wrapped net."""
        logits: Tensor = self.net(inputs)
        return logits


def load_teachers(teachers: TeacherSpec) -> list[LoadedTeacher]:
    """Find and load teachers.

    Args:
        teachers: A checkpoint, a run's folder (its best checkpoint, or its last where there was no validation),
            a glob of either, a file of logits (see `LogitsFile`), a module, a `Teacher`, or a list of such. Modules are
            copied: the user's own stay as they are.

    Raises:
        FileNotFoundError: If nothing matches.
        ValueError: If a checkpoint is damaged or can't be rebuilt, two files of one run match, or a module can't be
            copied.
    """
    return [loaded for teacher in listed_teachers(teachers) for loaded in _loaded(teacher)]


def _loaded(teacher: NamedTeacher) -> list[LoadedTeacher]:
    match teacher:
        case Teacher():
            loaded = _loaded(os.fspath(teacher.net) if isinstance(teacher.net, os.PathLike) else teacher.net)
            return [_adapted(each, teacher) for each in loaded]
        case nn.Module():
            return [LoadedTeacher(_copied(teacher), type(teacher).__qualname__, {})]
        case _:
            found = teacher_checkpoints(teacher)
            return [load_logits(path) if path.suffix in SUFFIXES else _read_net(path) for path in found]


def _adapted(loaded: LoadedTeacher, teacher: Teacher) -> LoadedTeacher:
    """A loaded net with the weights, inputs and classes of its `Teacher`."""
    net, source = loaded.net, loaded.source
    if teacher.weights is not None:
        load_weights(net, Path(teacher.weights))
        source = str(teacher.weights)
    if teacher.inputs is not None or teacher.classes is not None:
        net = AdaptedNet(net, copy.deepcopy(teacher.inputs), teacher.classes)
    return LoadedTeacher(net, source, loaded.data, teacher.weight)


def _copied(net: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except Exception as error:  # a net may hold anything
        raise ValueError(
            f"the teacher {type(net).__qualname__} can't be copied ({error}); expected a module that copy.deepcopy "
            "takes, since a teacher is frozen while the user's own module stays as it is"
        ) from error


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


def load_net(path: str | os.PathLike[str], net: nn.Module | None = None) -> nn.Module:
    """The trained net of a run, a teacher's or a student's, in eval mode.

    Args:
        path: A run's folder (its best checkpoint, or its last where there was no validation), or a checkpoint.
        net: A net of the same shape, which gets the weights in place; needed where the checkpoint does not say how its
            net is built, as for a net of your own that a script made.

    Raises:
        FileNotFoundError: If there is no such run or file.
        ValueError: If the file is damaged, does not say how its net is built, or does not fit the net given.

    Example:
        >>> net = load_net("runs/mnist/distilled")
        >>> classes = net(images).argmax(dim=1)
    """
    file = run_checkpoint(Path(path)) if Path(path).is_dir() else Path(path)
    return _read_net(file, net).net.eval()


def _read_net(path: Path, net: nn.Module | None = None) -> LoadedTeacher:
    """Rebuild the net of a checkpoint that this package wrote, or give its weights to the net given.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not say how its net is built.
    """
    checkpoint = read_checkpoint(path)
    record = checkpoint.get(RECORD_KEY, {})
    description = record.get("net")
    if net is None and description is None:
        raise ValueError(
            f"checkpoint {path} does not say how its net is built; pass the net itself, "
            "kd_lightning.load_net(path, net=net), which can also teach: teachers=[that]"
        )
    net = build_net(description) if net is None else net
    weights = {
        name.removeprefix("net."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("net.")
    }
    _load_state(net, weights, path)
    return LoadedTeacher(net, str(path), record.get("data", {}))


def net_to_give(path: Path, argument: str) -> nn.Module | None:
    """The net that a module's constructor must be given to be loaded from a checkpoint, built as the checkpoint says.

    Args:
        path: The checkpoint.
        argument: Name of the constructor's argument.

    Returns:
        None where the checkpoint holds that argument, as those of the command line do, and for other files.

    Raises:
        ValueError: If the checkpoint says nothing of how the net is built.
    """
    if not path.is_file():
        return None
    checkpoint = read_checkpoint(path)
    if RECORD_KEY not in checkpoint or argument in checkpoint.get("hyper_parameters", {}):
        return None
    description = checkpoint[RECORD_KEY].get("net")
    if description is None:
        raise ValueError(
            f"checkpoint {path} holds the weights of {argument}, not how it is built: "
            f"load_from_checkpoint(path, {argument}=...) needs the net"
        )
    return build_net(description)


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a state dict from a file into a net.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not fit the net.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    _load_state(net, _read_weights(path), path)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError  # comes with the extra kd_lightning[safetensors]
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"weights file {path} is damaged: {error}") from error
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
