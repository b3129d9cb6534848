"""The logits of a net that may be anyone's."""

from collections.abc import Callable

import torch
from torch import Tensor


def logits_of(net: Callable[[Tensor], object], inputs: Tensor, name: str) -> Tensor:
    """Logits of a net, (batch, classes) floating, of any module that may not give them.

    Args:
        net: Maps inputs to logits.
        inputs: (batch, ...), as the net takes them.
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
        raise ValueError(f"{name} failed on inputs of shape {tuple(inputs.shape)}: {reason}") from error
    if isinstance(logits, Tensor) and logits.dim() == 2 and logits.is_floating_point():
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # a length is no number then
        if tracing or len(logits) == len(inputs):
            return logits
    raise ValueError(
        f"{name} must return logits, a floating-point tensor (batch, classes) with a row for each of the "
        f"{len(inputs)} inputs, got {_described(logits)}"
    )


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{output.dtype} of shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}; take its logits in a net of your own around this one"
    return "None; does its forward end with `return`?" if output is None else f"a {type(output).__name__}"
