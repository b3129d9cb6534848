"""`export` writes a file that gives the checkpoint's outputs on any batch, without this package."""

import json
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from kd_lightning.cli.command_line import main
from kd_lightning.export.command import run_export
from kd_lightning.teachers.loading import load_net
from tests.export.images import mnist5k_images


@pytest.mark.parametrize("kind", ["safetensors", "pt2", "onnx"])
def test_every_test_image_gets_the_checkpoints_class(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = run / f"taken.{kind}"
    assert main(["export", str(run), "--format", kind, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    errors = json.loads((run / "metrics.json").read_text())["test"]["errors"]
    assert "on 1,000 test examples" in printed
    assert " names another class 0 times" in printed
    assert f"errors: {errors} of the net, {errors} of the file" in printed
    assert main(["export", str(run), "--format", kind, "--output", str(output)]) == 1
    assert f"error: {output} exists; choose another --output" in capsys.readouterr().err
    assert main(["export", str(run), "--format", kind, "--output", str(output), "--overwrite", "true"]) == 0


def test_an_onnx_file_takes_pixels_and_gives_probabilities(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = run / "pixels.onnx"
    run_export([str(run), "--inputs", "uint8", "--outputs", "probabilities", "--output", str(file)])
    session = onnxruntime.InferenceSession(file)
    metadata = session.get_modelmeta().custom_metadata_map
    images = mnist5k_images()
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
    file = run / "by_itself.pt2"
    run_export([str(run), "--format", "pt2", "--output", str(file)])
    code = (
        f"import sys, torch; m = torch.export.load({str(file)!r}).module(); "
        "print(m(torch.zeros(3, 1, 28, 28)).shape, 'kd_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([3, 10]) False"


@pytest.mark.slow
def test_eight_bit_weights_are_tested_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, small = run / "plain.onnx", run / "small.int8.onnx"
    run_export([str(run), "--output", str(plain)])
    run_export([str(run), "--format", "onnx-int8", "--output", str(small)])
    assert small.stat().st_size < 0.5 * plain.stat().st_size
    errors = [int(count) for count in re.findall(r"net, (\d+) of the file", capsys.readouterr().out)]
    assert abs(errors[1] - errors[0]) <= 20


@pytest.mark.slow
def test_a_file_whose_outputs_differ_is_an_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--output", str(run / "strict.onnx"), "--tolerance", "-1"]) == 1
    assert "error: the file's outputs differ from the net's" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bad_file_does_not_replace_a_good_one(run: Path) -> None:
    file = run / "kept.onnx"
    run_export([str(run), "--output", str(file)])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is not kept"):
        run_export([str(run), "--output", str(file), "--overwrite", "true", "--tolerance", "-1"])
    assert file.read_bytes() == before
    assert {other.name for other in run.iterdir() if "kept" in other.name} == {"kept.onnx"}


class Stream(LightningDataModule):
    """Test images that are made as they are asked for, whole only in the hook before their transfer."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches
        self.made: list[weakref.ref[torch.Tensor]] = []

    def test_dataloader(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(self.batches):
            if sum(inputs() is not None for inputs in self.made) > 3:
                raise MemoryError("all batches are held at once")
            yield torch.rand(2, 1, 28, 28, 2), torch.tensor([0, 1])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        inputs = batch[0].mean(dim=-1)
        self.made.append(weakref.ref(inputs))
        return inputs, batch[1]


@pytest.mark.parametrize(("batches", "code"), [(8, 0), (0, 1)])
def test_batches_are_read_one_by_one(
    batches: int, code: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    data = {"data": {"class_path": f"{__name__}.Stream", "init_args": {"batches": batches}}}
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(data), encoding="utf-8")
    assert main(["export", str(tmp_path / "run"), "--format", "safetensors"]) == code
    out, err = capsys.readouterr()
    assert "on 16 test examples" in out if batches else "has no test batch to compare the file on" in err


@pytest.mark.slow
def test_figures_of_another_checkpoint_stay_out(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = run / "last.onnx"
    run_export([str(run / "checkpoints" / "last.ckpt"), "--output", str(file)])
    assert json.loads(onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["metrics"]) == {}


def test_errors_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["nowhere"], "no checkpoint file nowhere"),
        ([str(tmp_path)], "no checkpoint in"),
        ([str(run.parent)], f"{run.parent} is a folder of runs, expected one run; name one of: {run.name}"),
        ([str(run), "--format", "tflite"], "tflite"),
    ):
        assert main(["export", *arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]
