"""The logits of a user's net, checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]  # of a batch


def logits_of(net: Callable[[Any], object], inputs: Inputs, name: str) -> Tensor:  # Any: whatever the net takes
    """Logits of any module, (batch, classes) floating, with errors if it does not give them.

    Args:
        net: Maps inputs to logits.
        inputs: (batch, ...), as the net takes them, or a tuple or dict of such.
        name: What the errors call it.

    Raises:
        ValueError: If the net does not take such inputs, or gives something else.
    """
    try:
        logits = net(inputs)
    except RuntimeError as error:
        if type(error) is not RuntimeError or "memory" in str(error):  # such as a full GPU, which Lightning looks for
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name} failed on inputs of shape {_shapes(inputs)}: {reason}") from error
    if isinstance(logits, Tensor) and logits.dim() == 2 and logits.is_floating_point():
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # a length is no number then
        if tracing or len(logits) == _length(inputs):
            return logits
    raise ValueError(
        f"{name} must return logits, a floating-point tensor (batch, classes) with a row for each of the "
        f"{_length(inputs)} inputs, got {_described(logits)}"
    )


def _length(inputs: Inputs) -> int:
    """Examples of a batch."""
    if isinstance(inputs, Mapping):
        return len(next(iter(inputs.values())))
    return len(inputs) if isinstance(inputs, Tensor) else len(inputs[0])


def _shapes(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape))
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return ", ".join(f"{name}: {tuple(tensor.shape)}" for name, tensor in named)


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{output.dtype} of shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}; take its logits in a net of your own around this one"
    return "None; does its forward end with `return`?" if output is None else f"a {type(output).__name__}"
