"""What a net is: its class and arguments, its size, and a hash of its weights."""

import hashlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import torch
from torch import Tensor, nn

from kd_lightning.nets.construction import constructor_errors, constructor_parameters
from kd_lightning.nets.normalize import Normalize

Built = TypeVar("Built")

_NOT_PLAIN = object()
_DEEPEST = 4  # objects within objects that are described


def parameter_count(net: nn.Module) -> int:
    """Number of trainable and frozen parameters of a net, buffers left out."""
    return sum(parameter.numel() for parameter in net.parameters())


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Evaluate a net, then give each of its layers its own mode back; some may be kept in eval mode on purpose."""
    modes = [(layer, layer.training) for layer in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def build_net(description: dict[str, Any]) -> nn.Module:
    """Build a net from its class_path and init_args, with fresh weights.

    Raises:
        ValueError: If the class can't be imported or does not take these arguments.
    """
    return build_object(description, nn.Module)


def build_object(description: dict[str, Any], base: type[Built]) -> Built:
    """Build an object of a class below `base` from its class_path and init_args.

    Raises:
        ValueError: If the class can't be imported or does not take these arguments.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--built", type=base)
    try:
        config = parser.parse_object({"built": description})
    except jsonargparse.ArgumentError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"can't build {description.get('class_path')}: {reason}") from error
    with constructor_errors(parser, config):
        built: Built = parser.instantiate_classes(config).built
    return built


def describe_net(net: nn.Module) -> dict[str, Any] | None:
    """The class_path and init_args of a net that keeps its arguments in `init_args`, None for others."""
    init_args = getattr(net, "init_args", None)
    if not isinstance(init_args, dict):
        return None
    return with_numbers(net, {"class_path": f"{type(net).__module__}.{type(net).__qualname__}", "init_args": init_args})


def describe_object(made: object) -> dict[str, Any]:
    """The class_path and init_args of an object, as far as it keeps its arguments.

    Taken are `init_args`, Lightning's `hparams`, and attributes that have an argument's name. An argument that is an
    object is described in turn; one of which nothing plain is kept is left out.
    """
    return _described(made, _DEEPEST)


def _described(made: object, depth: int) -> dict[str, Any]:
    names = [parameter.name for _, parameter in constructor_parameters(type(made))]
    found = {name: getattr(made, name) for name in names if hasattr(made, name)}
    found |= dict(getattr(made, "hparams", {})) | getattr(made, "init_args", {})
    plain = {name: _plain(value, depth) for name, value in found.items()}
    given = {name: value for name, value in plain.items() if value is not _NOT_PLAIN}
    return {"class_path": f"{type(made).__module__}.{type(made).__qualname__}", "init_args": given}


def _plain(value: Any, depth: int) -> Any:  # Any: an argument may be anything
    """A plain value as it is, a path as text, an object as its class and arguments; _NOT_PLAIN for others."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        parts = [_plain(part, depth) for part in value]
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else parts
    if isinstance(value, Tensor | dict | type) or inspect.isroutine(value) or depth == 0:
        return _NOT_PLAIN
    return _described(value, depth - 1)


def with_numbers(net: nn.Module, description: dict[str, Any]) -> dict[str, Any]:
    """Fill in the mean and deviation that a net was left to take from its data.

    Args:
        net: Built from the description, maybe trained since.
        description: Its class_path and init_args.
    """
    layers = [layer for layer in net.children() if isinstance(layer, Normalize)]
    init_args = description.get("init_args") or {}
    if len(layers) != 1 or init_args.get("mean", 0) is not None:
        return description
    return {**description, "init_args": {**init_args, **layers[0].arguments()}}


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over a net's class and the names, types, shapes and bytes of its parameters and buffers.

    Two nets with the same fingerprint give the same logits in eval mode, however they were trained.
    """
    digest = hashlib.sha256(repr(net).encode())
    tensors: Iterable[tuple[str, Tensor]] = sorted(net.state_dict().items())
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
