"""A metric that keeps its number type."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class UncastMetric(Metric):
    """A metric that counts and sums in float32, whatever number type the module around it is cast to.

    torchmetrics guards `module.half()` and the like, but not `module.to(dtype)`, which the trainer calls under
    bf16-true and 16-true: bfloat16 can't tell 257 from 256.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: those of the metric that this is mixed with
        self._casts = False
        super().__init__(*args, **kwargs)
        self.set_dtype(torch.float32)  # torch's default type is bfloat16 within the trainer's bf16-true

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Change the number type on purpose."""
        self._casts = True
        try:
            return super().set_dtype(dst_type)
        finally:
            self._casts = False

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> nn.Module:  # Any: torchmetrics' own arguments
        """Move the metric with its module, and keep number types."""
        fn_of_bits = fn if self._casts else lambda tensor: _apply_to_bits(fn, tensor)
        applied: nn.Module = super()._apply(fn_of_bits, *args)
        return applied


def _apply_to_bits(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply a move or a cast to a tensor's bits: casts do not change integers."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    if not tensor.is_floating_point():
        return fn(tensor)
    return fn(tensor.view(integers[tensor.itemsize])).view(tensor.dtype)
