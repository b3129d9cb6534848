"""The frozen teachers stay as they are, outside the student's checkpoint, optimizer and modes."""

import lightning
import pytest
import torch
from torch import Tensor

from kd_lightning import Batch, SoftTargets
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.nets.digits import MLP, SmallConvNet
from kd_lightning.teachers.ensemble import FrozenEnsemble, Teacher
from kd_lightning.teachers.source import LiveTeachers, Softener, TeacherSource

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


class Fixed(TeacherSource):
    """The same soft targets for every batch."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs

    def __call__(self, batch: Batch, temperature: float) -> SoftTargets:
        return SoftTargets(self.log_probs, temperature)


def test_losses_are_the_stated_mixture() -> None:
    module = DistillModule(student=MLP(hidden=[4]), temperature=3.0, soft_weight=0.3)
    teacher = FrozenEnsemble([Teacher(MLP(hidden=[4]), "a net", {})])
    module.source = LiveTeachers(teacher, Softener())
    batch = Batch.of((torch.rand(6, 1, 28, 28), torch.arange(6)))
    losses = module.losses(batch, module(batch.inputs))
    mixed = 0.3 * losses["soft_loss"] + 0.7 * losses["hard_loss"]
    torch.testing.assert_close(losses["loss"], mixed)
    assert set(losses) == {"loss", "soft_loss", "hard_loss", "soft_cross_entropy"}
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in module.student.parameters())


def test_gradient_share_against_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    module = DistillModule(student=MLP(hidden=[4]), soft_weight=0.6, temperature=3.0)
    logits = torch.randn(8, 10, generator=generator, requires_grad=True)
    taught = torch.randn(8, 10, generator=generator)
    labels = torch.randint(10, (8,), generator=generator)
    targets = torch.log_softmax(taught / 3, dim=1)
    module.source = Fixed(targets)
    module.step_is_logged = True
    shares = losses = module.losses(Batch.of((torch.empty(0), labels)), logits)
    with torch.no_grad():  # the gradients by hand: T (q - p) / n and (q - y) / n
        soft = 0.6 * (3 * (torch.softmax(logits / 3, dim=1) - targets.exp()) / 8).norm()
        hard = 0.4 * ((torch.softmax(logits, dim=1) - torch.nn.functional.one_hot(labels, 10)) / 8).norm()
    assert float(shares["soft_gradient_share"]) == pytest.approx(float(soft / (soft + hard)), abs=1e-6)
    losses["loss"].backward()  # type: ignore[no-untyped-call]  # the graph is still there
    assert logits.grad is not None
