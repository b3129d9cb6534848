"""Files are written, and read back as a net that gives the same outputs."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_lightning import SmallConvNet, load_exported
from kd_lightning.export.command import run_export
from kd_lightning.export.formats import Format, read_exported, write_exported
from kd_lightning.export.net import ExportedNet
from kd_lightning.teachers.loading import load_net
from tests.export.images import mnist5k_images


def test_safetensors_come_back_as_a_net(run: Path) -> None:
    file = run / "weights.safetensors"
    run_export([str(run), "--format", "safetensors", "--inputs", "uint8", "--output", str(file)])
    images = mnist5k_images()[:20]
    net = load_net(run / "checkpoints" / "best.ckpt")
    assert torch.equal(load_exported(file)(images), net(images.float() / 255))
    with pytest.raises(FileNotFoundError, match="no exported file"):
        load_exported(run / "nowhere.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_net_with_its_channels_last_in_memory_answers_the_same(tmp_path: Path, kind: Format) -> None:
    made = SmallConvNet(channels=[4, 8], hidden=16)
    assert all(
        layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in made if isinstance(layer, nn.Conv2d)
    )
    net, images, file = ExportedNet(made, "float32", "logits").eval(), torch.rand(5, 1, 28, 28), tmp_path / "net"
    described = json.dumps({"class_path": "kd_lightning.SmallConvNet", "init_args": made.init_args})
    metadata = {"net": described, "input_type": net.inputs, "output_type": net.outputs}
    with torch.no_grad():
        write_exported(net, images[:2], file, kind, metadata)
        torch.testing.assert_close(read_exported(file, kind)(images), net(images))


class Branching(nn.Module):
    """It branches on its data; two of its tensors share their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(784, 10), nn.Linear(784, 10)
        self.second.weight = self.first.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        if flat.sum() > 0:
            return torch.as_tensor(self.first(flat))
        return torch.as_tensor(self.second(flat))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_net_that_branches_on_its_data_is_told_which_line(kind: Format, tmp_path: Path) -> None:
    net = ExportedNet(Branching(), "float32", "logits").eval()
    with pytest.raises(ValueError, match=r"depends on the data at .*test_formats.py:\d+, `if flat.sum\(\) > 0:`"):
        write_exported(net, torch.rand(2, 1, 28, 28), tmp_path / "net", kind, {})


def test_safetensors_takes_a_net_that_branches_and_ties_weights(tmp_path: Path) -> None:
    net = ExportedNet(Branching(), "float32", "logits").eval()
    write_exported(net, torch.rand(2, 1, 28, 28), tmp_path / "net.safetensors", "safetensors", {"net": "null"})
    assert (tmp_path / "net.safetensors").stat().st_size > 2 * 784 * 10 * 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"junk" * 9)
    with pytest.raises(ValueError, match=r"exported file .*net\.safetensors is damaged: "):
        load_exported(tmp_path / "net.safetensors")
