"""What a net costs to use: parameters, bytes, floating-point operations and the time of a forward pass."""

import io
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kd_lightning.data.inputs import Inputs, first_of, tensors_of
from kd_lightning.nets.description import in_eval_mode, parameter_count

# Passes before the measurement: the first ones choose kernels, start threads and take memory.
WARMUP_PASSES = 3
# Timed passes of a net, at least and at most, and the seconds after which there are enough; the shortest counts.
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
def measure_costs(nets: Mapping[str, nn.Module], inputs: Inputs) -> dict[str, Costs]:
    """Measure nets on their device, in eval mode; they take turns, so that all meet the same machine.

    Args:
        nets: Each maps inputs to logits; their layers' modes are put back.
        inputs: A batch's, (batch, ...) float, as the nets take them, on their device.

    Returns:
        What each costs, by its name.
    """
    with ExitStack() as modes:
        for net in nets.values():
            modes.enter_context(in_eval_mode(net))
        single, whole = _shortest_ms(nets, first_of(inputs)), _shortest_ms(nets, inputs)
        return {
            name: Costs(
                parameters=parameter_count(net),
                file_bytes=_file_bytes(net),
                flops=_flops(net, inputs),
                single_ms=single[name],
                batch_ms=whole[name],
                batch_size=len(tensors_of(inputs)[0]),
            )
            for name, net in nets.items()
        }


def _file_bytes(net: nn.Module) -> int:
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    return content.tell()


def _flops(net: nn.Module, inputs: Inputs) -> int:
    with FlopCounterMode(display=False) as counter:
        net(first_of(inputs))
    return int(counter.get_total_flops())


def _shortest_ms(nets: Mapping[str, nn.Module], inputs: Inputs) -> dict[str, float]:
    """The shortest of many passes, which is repeatable: other work on the machine only makes a pass longer."""
    for net in nets.values():
        for _ in range(WARMUP_PASSES):
            _seconds(net, inputs)
    shortest, spent, passes = dict.fromkeys(nets, float("inf")), 0.0, 0
    while passes < LEAST_PASSES or (passes < MOST_PASSES and spent < ENOUGH_SECONDS * len(nets)):
        for name, net in nets.items():
            seconds = _seconds(net, inputs)
            shortest[name], spent = min(shortest[name], seconds), spent + seconds
        passes += 1
    return {name: 1000 * seconds for name, seconds in shortest.items()}


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
