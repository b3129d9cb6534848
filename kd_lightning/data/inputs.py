"""The inputs of a batch: one tensor, or a tuple or dict of them, of which each net picks its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of a batch's inputs, each (batch, ...)."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Inputs of the same form, each tensor changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return tuple(change(tensor) for tensor in inputs)


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on a device."""
    return mapped(inputs, lambda tensor: tensor.to(device))


def first_of(inputs: Inputs) -> Inputs:
    """Inputs of a batch's first example, (1, ...)."""
    return mapped(inputs, lambda tensor: tensor[:1])


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Inputs of several batches of one form as those of one batch."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: torch.cat([part[name] for part in parts if isinstance(part, dict)]) for name in first}
    columns = [torch.cat(column) for column in zip(*map(tensors_of, parts), strict=True)]
    return columns[0] if isinstance(first, Tensor) else tuple(columns)


def checked_inputs(inputs: Any) -> Inputs:  # Any: whatever a user's data module gives
    """A batch's inputs, if they are any; torch's own collate function makes a list of tuples, which becomes a tuple.

    Raises:
        ValueError: If they are something else than tensors of the same examples.
    """
    if isinstance(inputs, Tensor) and inputs.ndim > 0:
        return inputs
    parts = _parts(inputs)
    lengths = {len(part) if isinstance(part, Tensor) and part.ndim > 0 else None for part in parts}
    if len(lengths) == 1 and None not in lengths:
        if isinstance(inputs, tuple | dict):
            return inputs
        return dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs)
    raise ValueError(
        "a batch's inputs must be a tensor (batch, ...), or a tuple or dict of such tensors of the same examples, got "
        f"{described(inputs)}{': ' * bool(parts)}{', '.join(map(described, parts[:4]))}"
    )


def described(part: object) -> str:
    """What a part of a batch is, for errors."""
    if isinstance(part, Tensor):
        return f"a tensor of shape {tuple(part.shape)} and type {str(part.dtype).removeprefix('torch.')}"
    if isinstance(part, Mapping):
        return f"a {type(part).__name__} with {', '.join(map(str, part))}"
    return f"a {type(part).__name__}" + (f" of {len(part)}" if isinstance(part, tuple | list) else "")


def _parts(inputs: object) -> list[object]:
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple | list) else ())
