"""load_net opens any run and checkpoint of this package."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from kd_lightning import MLP, DistillModule, load_net
from kd_lightning.nets.description import fingerprint
from kd_lightning.teachers.loading import load_weights

OLD_RUN = Path(__file__).parents[1] / "files" / "before_rooms" / "teacher"


def _checkpoint(net: nn.Module, path: Path) -> DistillModule:
    module = DistillModule(student=net, soft_weight=0.0)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    module.trainer = trainer
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return module


def test_a_run_and_its_checkpoint_give_the_same_net() -> None:
    by_folder, by_file = load_net(OLD_RUN), load_net(str(OLD_RUN / "checkpoints" / "last.ckpt"))
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(by_folder(images), by_file(images))
    assert not by_folder.training


def test_a_student_made_in_python_is_built_again(tmp_path: Path) -> None:
    module = _checkpoint(MLP(hidden=[5], dropout_hidden=0.5), tmp_path / "s.ckpt")
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(load_net(tmp_path / "s.ckpt")(images), module.net.eval()(images))
    again = DistillModule.load_from_checkpoint(tmp_path / "s.ckpt", weights_only=True)
    assert torch.equal(again.net.eval()(images), module.net(images))
    assert again.soft_weight == 0.0


def test_a_net_that_is_not_described_is_asked_for(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    _checkpoint(net, tmp_path / "s.ckpt")
    with pytest.raises(
        ValueError, match=r"does not say how its net is built; pass the net itself, kd_lightning.load_net"
    ):
        load_net(tmp_path / "s.ckpt")
    with pytest.raises(ValueError, match=r"load_from_checkpoint\(path, student=\.\.\.\) needs the net"):
        DistillModule.load_from_checkpoint(tmp_path / "s.ckpt")
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    assert load_net(tmp_path / "s.ckpt", net=fresh) is fresh
    assert fingerprint(fresh) == fingerprint(net)
    with pytest.raises(ValueError, match="do not fit MLP"):
        load_net(tmp_path / "s.ckpt", net=MLP(hidden=[3]))


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        load_net(tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_net(tmp_path)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_a_damaged_weights_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"junk" * 9)
    with pytest.raises(ValueError, match=f"weights file .*{name} is damaged"):
        load_weights(MLP(hidden=[3]), tmp_path / name)
