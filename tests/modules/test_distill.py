"""The frozen teachers stay as they are, outside the student's checkpoint, optimizer and modes."""

import lightning
import torch

from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.nets.digits import MLP, SmallConvNet

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_teachers_do_not_change() -> None:
    data = MNISTDataModule(dataset="mnist5k", val_size=200)
    teacher = TeacherModule(net=SmallConvNet(channels=[4], hidden=16))
    lightning.Trainer(max_epochs=1, **QUIET).fit(teacher, data)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in teacher.net.state_dict().items()}
    module = DistillModule(student=MLP(hidden=[16]), teachers=[teacher.net])
    lightning.Trainer(max_steps=3, **QUIET).fit(module, data)  # type: ignore[arg-type]
    module.train()
    assert module.teachers is not None
    assert not any(part.training for part in module.teachers.modules())
    assert not any(parameter.requires_grad for parameter in module.teachers.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.net.state_dict().items())
    assert all(name.startswith("net.") for name in module.state_dict())
    assert len(list(module.parameters())) == len(list(module.student.parameters()))
