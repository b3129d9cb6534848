"""What a net is: its class and arguments, its size, and a hash of its weights."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jsonargparse
import torch
from torch import Tensor, nn

from kd_lightning.nets.construction import constructor_errors
from kd_lightning.nets.normalize import Normalize

Built = TypeVar("Built")


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
