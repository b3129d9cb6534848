"""A net takes mean and deviation from the data that it first trains on, and keeps them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning import MLP, InMemoryDataModule, TeacherModule, load_teachers, main
from kd_lightning.nets.digits import MNIST_MEAN, MNIST_STD

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}
CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"


class Colours(InMemoryDataModule):
    """Pictures of two classes, each channel with its own mean."""

    unit, num_classes = "pictures", 2

    def __init__(self, shift: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.shift = shift

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(0)
        pictures = torch.randn(40, 3, 2, 2, generator=random) + torch.tensor([1.0, 5.0, 9.0]).view(1, 3, 1, 1)
        labels = (pictures.mean(dim=(1, 2, 3)) > 5).long()
        return (pictures + self.shift, labels), (pictures[:4], labels[:4])


class Plain(lightning.LightningDataModule):
    """A user's own data, which says nothing of its inputs."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.randn(20, 12) + 7, torch.arange(20) % 2), batch_size=10)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


def _fit(module: TeacherModule, data: Any, *callbacks: Any, resume: Path | None = None, epochs: int = 1) -> Any:
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, callbacks=list(callbacks), **QUIET
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def _module() -> TeacherModule:
    return TeacherModule(net=MLP(hidden=[4], inputs=12, classes=2))


def _mean(module: Any) -> list[float]:
    mean: list[float] = module.net[0].mean.tolist()
    return mean


def test_a_fresh_net_takes_the_numbers_of_the_training_pictures(caplog: pytest.LogCaptureFixture) -> None:
    module, data = _module(), Colours(batch_size=8, val_size=10)
    with caplog.at_level("INFO"):
        _fit(module, data)
    pictures = data.examples("train").inputs[data.train_rows]
    torch.testing.assert_close(module.net[0].mean, pictures.mean(dim=(0, 2, 3)))  # type: ignore[index]
    torch.testing.assert_close(module.net[0].std, pictures.std(dim=(0, 2, 3), correction=0))  # type: ignore[index]
    assert "inputs are normalised by mean [" in caplog.text
    assert "of the training pictures" in caplog.text


def test_a_trained_net_keeps_them(caplog: pytest.LogCaptureFixture) -> None:
    module = _module()
    _fit(module, Colours(batch_size=8))
    before = _mean(module)
    caplog.clear()
    _fit(module, Colours(shift=3.0, batch_size=8))
    assert _mean(module) == before
    assert "normalised" not in caplog.text


def test_given_numbers_stay() -> None:
    module = TeacherModule(net=MLP(hidden=[4], inputs=12, classes=2, mean=0.5, std=2.0))
    _fit(module, Colours(batch_size=8))
    assert module.net[0].mean.tolist() == 0.5  # type: ignore[index]


def test_a_resumed_run_and_its_teacher_keep_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = _module()
    _fit(module, Colours(batch_size=8)).save_checkpoint(tmp_path / "file.ckpt")
    (teacher,) = load_teachers(str(tmp_path / "file.ckpt"))
    assert teacher.net.init_args["mean"] == pytest.approx(_mean(module))  # type: ignore[index]
    caplog.clear()
    other = _module()
    _fit(other, Colours(shift=3.0, batch_size=8), resume=tmp_path / "file.ckpt", epochs=2)
    assert _mean(other) == _mean(module) == _mean(teacher)
    assert "normalised" not in caplog.text


def test_a_resumed_run_of_before_keeps_one_number_for_all_channels(tmp_path: Path) -> None:
    old = TeacherModule(net=MLP(hidden=[4], inputs=12, classes=2, mean=MNIST_MEAN, std=MNIST_STD))
    _fit(old, Colours(batch_size=8)).save_checkpoint(tmp_path / "file.ckpt")
    module = _module()
    _fit(module, Colours(batch_size=8), resume=tmp_path / "file.ckpt", epochs=2)
    assert module.net[0].mean.tolist() == pytest.approx(MNIST_MEAN)  # type: ignore[index]


def test_averaged_weights_are_normalised_too(tmp_path: Path) -> None:
    module = _module()
    trainer = _fit(module, Colours(batch_size=8), EMAWeightAveraging(decay=0.9))
    trainer.save_checkpoint(tmp_path / "file.ckpt")
    saved = torch.load(tmp_path / "file.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["net.0.mean"], module.net[0].mean)  # type: ignore[index]


def test_a_net_of_data_that_says_nothing_takes_inputs_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    module = _module()
    with caplog.at_level("INFO"):
        _fit(module, Plain())
    assert module.net[0].arguments() == {"mean": 0.0, "std": 1.0}  # type: ignore[index]
    assert "since the data says nothing of its inputs; set the net's mean and std" in caplog.text


def test_a_compiled_net_is_normalised() -> None:
    module = TeacherModule(net=MLP(hidden=[4], inputs=12, classes=2), compile=False)
    compiled: list[Tensor] = []
    module.net.compile(backend=lambda graph, _: lambda *inputs: compiled.append(inputs[0]) or graph(*inputs))  # type: ignore[func-returns-value]
    _fit(module, Colours(batch_size=8))
    assert compiled
    inputs = torch.full((1, 3, 2, 2), 5.0)
    torch.testing.assert_close(module.net(inputs), module.net.forward(inputs))


@pytest.mark.slow
def test_mnist_runs_are_as_before_and_resume_with_the_new_default(tmp_path: Path) -> None:
    small = ["--trainer.enable_progress_bar", "false", "--data.train_fraction", "0.1", "--model.net.hidden", "[8]"]
    fit = ["fit", "--config", str(CONFIGS / "teacher.yaml"), *small]
    given = ["--model.net.mean", str(MNIST_MEAN), "--model.net.std", str(MNIST_STD)]
    short, longer = ["--trainer.max_epochs", "1"], ["--trainer.max_epochs", "2"]
    assert main([*fit, *short, "--run_dir", "old", *given]) == 0
    assert main([*fit, *short, "--run_dir", "new"]) == 0
    assert main([*fit, *longer, "--run_dir", "old", "--ckpt_path", "last"]) == 0
    assert main([*fit, *longer, "--run_dir", "new", "--ckpt_path", "last"]) == 0
    old, new = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("old", "new"))
    assert all(torch.equal(tensor, new["state_dict"][name]) for name, tensor in old["state_dict"].items())
    assert new["kd_lightning"]["net"]["init_args"]["mean"] == pytest.approx(MNIST_MEAN)
    assert main([*fit, *longer, "--run_dir", "old", "--ckpt_path", "last", "--model.net.mean", "0.5"]) == 1


# A process of its own: autograd can't be forked once it has run, and here other tests have run it.
TWO_PROCESSES = """
import lightning
from tests.modules.test_input_statistics import QUIET, Colours, _module

if __name__ == "__main__":
    two = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_fork"}
    lightning.Trainer(max_epochs=1, **two, **QUIET).fit(_module(), Colours(batch_size=8))
"""


@pytest.mark.slow
def test_two_processes_have_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TWO_PROCESSES, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    state = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)["state_dict"]
    one = _module()
    _fit(one, Colours(batch_size=8))
    assert state["net.0.mean"].tolist() == _mean(one)
