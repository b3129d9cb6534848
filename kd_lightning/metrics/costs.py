"""What a net costs to use: parameters, bytes, floating-point operations and the time of a forward pass."""

import io
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kd_lightning.data.inputs import Inputs, first_of, tensors_of
from kd_lightning.nets.description import in_eval_mode, parameter_count

# Passes before the measurement: the first ones choose kernels, start threads and take memory.
WARMUP_PASSES = 3
# Timed passes, at least and at most, and the seconds after which there are enough; the shortest counts.
LEAST_PASSES, MOST_PASSES, ENOUGH_SECONDS = 5, 100, 0.5


class Costs(NamedTuple):
    """What one net, or several that answer together, cost.

    Attributes:
        parameters: Trainable and frozen, buffers left out.
        file_bytes: Size of the weights and buffers as torch.save writes them.
        flops: Floating-point operations of the forward pass of one example, as torch counts them: a multiplication
            and an addition are two. Matrix products, convolutions and attention count, the rest does not.
        single_ms: Shortest wall time of a forward pass of one example over many passes, ms.
        batch_ms: The same of a whole batch, ms.
        batch_size: Examples of that batch.
    """

    parameters: int
    file_bytes: int
    flops: int
    single_ms: float
    batch_ms: float
    batch_size: int


@torch.no_grad()
def measure_costs(net: nn.Module, inputs: Inputs) -> Costs:
    """Measure a net on its device, in eval mode.

    Args:
        net: Maps inputs to logits; its layers' modes are put back.
        inputs: A batch's, (batch, ...) float, as the net takes them, on its device.
    """
    counter = FlopCounterMode(display=False)
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    with in_eval_mode(net):
        with counter:
            net(first_of(inputs))
        return Costs(
            parameters=parameter_count(net),
            file_bytes=content.tell(),
            flops=counter.get_total_flops(),
            single_ms=_shortest_ms(net, first_of(inputs)),
            batch_ms=_shortest_ms(net, inputs),
            batch_size=len(tensors_of(inputs)[0]),
        )


def _shortest_ms(net: nn.Module, inputs: Inputs) -> float:
    """The shortest of many passes, which is repeatable: other work on the machine only makes a pass longer."""
    for _ in range(WARMUP_PASSES):
        _seconds(net, inputs)
    shortest, spent, passes = float("inf"), 0.0, 0
    while passes < LEAST_PASSES or (passes < MOST_PASSES and spent < ENOUGH_SECONDS):
        seconds = _seconds(net, inputs)
        shortest, spent, passes = min(shortest, seconds), spent + seconds, passes + 1
    return 1000 * shortest


def _seconds(net: nn.Module, inputs: Inputs) -> float:
    """Wall time of a forward pass."""
    _wait_for(tensors_of(inputs)[0].device)
    started = time.perf_counter()
    net(inputs)
    _wait_for(tensors_of(inputs)[0].device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
