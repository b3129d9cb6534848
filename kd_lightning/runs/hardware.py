"""The name of what a run is computed on."""

import os
import platform
from functools import cache
from pathlib import Path

import torch


def hardware_of(device: torch.device) -> str:
    """Such as "2 cores of AMD EPYC", after the name of a device of CUDA where it is one."""
    cores = f"{os.cpu_count()} cores of {_processor()}"
    return f"{torch.cuda.get_device_name(device)} and {cores}" if device.type == "cuda" else cores


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
