"""Which precision can't train, and where one is slow."""

import logging

import pytest
import torch

from kd_lightning.modules import precision
from kd_lightning.modules.precision import check_precision, has_bfloat16_instructions

CPU = torch.device("cpu")


def test_float16_weights_may_evaluate_and_not_train() -> None:
    check_precision("16-true", CPU, trains=False)
    for name in ("32-true", "bf16-true", "bf16-mixed", "16-mixed"):
        check_precision(name, CPU, trains=True)
    with pytest.raises(ValueError, match="16-true can't train: in float16 Adam's epsilon of 1e-8 is 0"):
        check_precision("16-true", CPU, trains=True)
    assert torch.tensor(1e-8, dtype=torch.float16) == 0
    assert torch.tensor(1e-8, dtype=torch.bfloat16) > 0


@pytest.mark.parametrize(
    ("name", "device", "instructions", "said"),
    [
        ("bf16-mixed", "cpu", False, True),
        ("bf16-true", "cpu", False, True),
        ("bf16-mixed", "cpu", True, False),
        ("bf16-mixed", "cuda", False, False),
        ("32-true", "cpu", False, False),
    ],
)
def test_slow_bfloat16_is_said(
    name: str,
    device: str,
    instructions: bool,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda: instructions)
    with caplog.at_level(logging.INFO):
        check_precision(name, torch.device(device), trains=False)
    assert ("no instructions for bfloat16" in caplog.text) is said


def test_torch_tells_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(has_bfloat16_instructions(), bool)  # the names that torch keeps private are still there
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for asked in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, asked, lambda: False)
    assert not has_bfloat16_instructions()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert has_bfloat16_instructions()
