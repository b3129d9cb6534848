"""What a run was computed on."""

import os
from pathlib import Path

import pytest
import torch

from kd_lightning.runs.hardware import hardware_of

CPU = torch.device("cpu")


def test_a_processor_has_its_cores_and_its_name() -> None:
    said = hardware_of(CPU)
    assert said.startswith(f"{os.cpu_count()} cores of ")
    name = said.partition(" cores of ")[2]
    assert name
    assert not Path("/proc/cpuinfo").is_file() or f": {name}\n" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def test_a_gpu_stands_before_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert hardware_of(torch.device("cuda", 1)) == f"GPU 1 and {hardware_of(CPU)}"
