"""The exported student answers as the checkpoint does, alone, on any batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_lightning import MLP, SmallConvNet, load_exported
from kd_lightning.cli.command_line import main
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.export import (
    ExportedNet,
    Format,
    compare,
    evaluation_batches,
    read_exported,
    run_export,
    write_exported,
)
from kd_lightning.teachers.loading import load_net

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    flags = ["--model.student.hidden", "[30]", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    config = str(CONFIGS / "quickstart" / "student.yaml")
    assert main(["fit", "--config", config, "--run_dir", str(folder), *flags]) == 0
    assert main(["test", "--ckpt_path", str(folder), "--trainer.enable_progress_bar", "false"]) == 0
    return folder


def _images() -> torch.Tensor:
    data = MNISTDataModule(dataset="mnist5k")
    data.setup("test")
    return data.all_images("test").images


@pytest.mark.parametrize("kind", ["safetensors", "pt2", "onnx"])
def test_every_test_image_gets_the_checkpoints_class(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = run / f"taken.{kind}"
    assert main(["export", str(run), "--format", kind, "--output", str(output)]) == 0
    told = capsys.readouterr().out
    errors = json.loads((run / "metrics.json").read_text())["test"]["errors"]
    assert "on 1,000 test examples" in told
    assert ", 0 in another class" in told
    assert f"errors {errors} of the net, {errors} of the file" in told
    assert main(["export", str(run), "--format", kind, "--output", str(output)]) == 1
    assert f"error: {output} exists; choose another --output" in capsys.readouterr().err
    assert main(["export", str(run), "--format", kind, "--output", str(output), "--overwrite", "true"]) == 0


def test_onnx_alone_takes_pixels_and_gives_probabilities(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = run / "pixels.onnx"
    run_export([str(run), "--inputs", "uint8", "--outputs", "probabilities", "--output", str(file)])
    session = onnxruntime.InferenceSession(file)
    metadata = session.get_modelmeta().custom_metadata_map
    images = _images()
    net = load_net(run / "checkpoints" / "best.ckpt")
    for count in (1, 7, 1000):
        (answers,) = session.run(None, {"inputs": images[:count].numpy()})
        expected = net(images[:count].float() / 255).softmax(dim=1)
        torch.testing.assert_close(torch.from_numpy(answers), expected.detach(), atol=1e-5, rtol=1e-4)
    assert json.loads(metadata["labels"]) == [str(digit) for digit in range(10)]
    assert json.loads(metadata["metrics"])["examples"] == 1000
    assert metadata["inputs"] == "uint8 ['batch', 1, 28, 28]"
    assert len(metadata["fingerprint"]) == 64


@pytest.mark.slow
def test_pt2_needs_nothing_of_this_package(run: Path) -> None:
    file = run / "alone.pt2"
    run_export([str(run), "--format", "pt2", "--output", str(file)])
    code = (
        f"import sys, torch; m = torch.export.load({str(file)!r}).module(); "
        "print(m(torch.zeros(3, 1, 28, 28)).shape, 'kd_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([3, 10]) False"


def test_safetensors_come_back_as_a_net(run: Path) -> None:
    file = run / "weights.safetensors"
    run_export([str(run), "--format", "safetensors", "--inputs", "uint8", "--output", str(file)])
    images = _images()[:20]
    net = load_net(run / "checkpoints" / "best.ckpt")
    assert torch.equal(load_exported(file)(images), net(images.float() / 255))
    with pytest.raises(FileNotFoundError, match="no exported file"):
        load_exported(run / "nowhere.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "pt2", "onnx"])
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


def test_eight_bit_weights_are_tested_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, small = run / "plain.onnx", run / "small.int8.onnx"
    run_export([str(run), "--output", str(plain)])
    run_export([str(run), "--format", "onnx-int8", "--output", str(small)])
    assert small.stat().st_size < 0.5 * plain.stat().st_size
    errors = [int(line.split()[-4]) for line in capsys.readouterr().out.splitlines() if " of the file" in line]
    assert abs(errors[1] - errors[0]) <= 20


def test_a_file_that_answers_otherwise_is_an_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--output", str(run / "strict.onnx"), "--tolerance", "-1"]) == 1
    assert "error: the file answers otherwise than the net" in capsys.readouterr().err
    net, other = ExportedNet(MLP(hidden=[5]).eval(), "float32", "logits"), MLP(hidden=[5]).eval()
    found = compare(net, other, [(torch.rand(50, 1, 28, 28), torch.zeros(50, dtype=torch.int64))])
    assert found.difference > 1e-3
    assert found.examples == 50
    broken = compare(
        net, lambda inputs: net(inputs) * float("nan"), [(torch.rand(5, 1, 28, 28), torch.zeros(5).long())]
    )
    assert broken.difference == float("inf")


def test_a_bad_file_does_not_replace_a_good_one(run: Path) -> None:
    file = run / "kept.onnx"
    run_export([str(run), "--output", str(file)])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is not kept"):
        run_export([str(run), "--output", str(file), "--overwrite", "true", "--tolerance", "-1"])
    assert file.read_bytes() == before
    assert {other.name for other in run.iterdir() if "kept" in other.name} == {"kept.onnx"}


def test_figures_of_another_checkpoint_stay_out(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = run / "last.onnx"
    run_export([str(run / "checkpoints" / "last.ckpt"), "--output", str(file)])
    assert json.loads(onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["metrics"]) == {}


def test_errors_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["nowhere"], "no checkpoint file nowhere"),
        ([str(tmp_path)], "no checkpoint in"),
        ([str(run), "--format", "tflite"], "tflite"),
    ):
        assert main(["export", *arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]


def test_a_configuration_without_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml names no data"):
        next(evaluation_batches(tmp_path, None, raw=False))
    (tmp_path / "config.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        next(evaluation_batches(tmp_path, None, raw=False))


class Branching(nn.Module):
    """Its way through depends on the data; two of its tensors share their memory."""

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
    with pytest.raises(ValueError, match=r"depends on the data at .*test_export.py:\d+, `if flat.sum\(\) > 0:`"):
        write_exported(net, torch.rand(2, 1, 28, 28), tmp_path / "net", kind, {})


def test_safetensors_takes_a_net_that_branches_and_ties_weights(tmp_path: Path) -> None:
    net = ExportedNet(Branching(), "float32", "logits").eval()
    write_exported(net, torch.rand(2, 1, 28, 28), tmp_path / "net.safetensors", "safetensors", {"net": "null"})
    assert (tmp_path / "net.safetensors").stat().st_size > 2 * 784 * 10 * 4
