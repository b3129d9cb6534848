"""A file is compared with its net on the test examples of the run."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from kd_lightning import MLP
from kd_lightning.data.inputs import tensors_of
from kd_lightning.export.comparison import compare, evaluation_batches
from kd_lightning.export.net import ExportedNet


def test_outputs_that_differ_are_measured() -> None:
    net, other = ExportedNet(MLP(hidden=[5]).eval(), "float32", "logits"), MLP(hidden=[5]).eval()
    found = compare(net, other, [(torch.rand(50, 1, 28, 28), torch.zeros(50, dtype=torch.int64))])
    assert found.difference > 1e-3
    assert found.examples == 50
    broken = compare(
        net, lambda inputs: net(inputs) * float("nan"), [(torch.rand(5, 1, 28, 28), torch.zeros(5).long())]
    )
    assert broken.difference == float("inf")


def test_a_configuration_without_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml names no data"):
        next(evaluation_batches(tmp_path, None, raw=False))
    (tmp_path / "config.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        next(evaluation_batches(tmp_path, None, raw=False))


def test_nothing_is_said_of_a_gpu_that_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    data = "class_path: kd_lightning.MNISTDataModule, init_args: {dataset: mnist5k, val_size: 0}"
    (tmp_path / "config.yaml").write_text(f"data: {{{data}}}", encoding="utf-8")
    inputs, _ = next(evaluation_batches(tmp_path, None, raw=False))
    assert {tensor.device.type for tensor in tensors_of(inputs)} == {"cpu"}
