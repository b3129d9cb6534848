"""The frozen teachers stay as they are, outside the student's checkpoint, optimizer and modes."""

import copy
import functools
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from kd_lightning import MLP, Batch, DistillModule, MNISTDataModule, SmallConvNet, SoftLoss, SoftTargets, TeacherModule
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.loading import load_teachers
from kd_lightning.teachers.named import listed_teachers
from kd_lightning.teachers.source import LiveTeachers, Softener, TeacherSource

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    return MNISTDataModule(dataset="mnist5k", val_size=200, batch_size=64)


@functools.cache
def _trained() -> nn.Sequential:
    teacher = TeacherModule(net=MLP(hidden=[16]))
    _fit(teacher, MNISTDataModule(dataset="mnist5k", val_size=200, batch_size=64), max_steps=40)
    assert isinstance(teacher.net, nn.Sequential)
    return teacher.net.train()


def _fit(module: lightning.LightningModule, data: MNISTDataModule, **flags: Any) -> None:
    lightning.Trainer(**{"max_steps": 2} | QUIET | flags).fit(module, data)


class _Fails(lightning.Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        raise ArithmeticError


@pytest.mark.parametrize("fails", [False, True])
def test_the_users_own_module_stays_as_it_was(fails: bool, data: MNISTDataModule) -> None:
    teacher = _trained()
    teacher[3].eval()
    teacher[2].requires_grad_(requires_grad=False)
    before = [layer.training for layer in teacher.modules()], [p.requires_grad for p in teacher.parameters()]
    student = DistillModule(student=MLP(hidden=[8]), teachers=[teacher])
    try:
        _fit(student, data, callbacks=[_Fails()] if fails else [])
    except ArithmeticError:
        assert fails
    after = [layer.training for layer in teacher.modules()], [p.requires_grad for p in teacher.parameters()]
    teacher.train().requires_grad_()
    assert after == before
    teacher(torch.rand(3, 1, 28, 28)).sum().backward()


def test_each_fit_learns_from_the_teacher_as_it_is_then(data: MNISTDataModule) -> None:
    teacher = copy.deepcopy(_trained())
    student = DistillModule(student=MLP(hidden=[8]), teachers=[teacher])
    _fit(student, data)
    before = student.teacher_records[0]["fingerprint"]
    nn.init.zeros_(next(iter(teacher.parameters()))[0])
    _fit(student, data)
    assert student.teacher_records[0]["fingerprint"] != before


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_layers_that_the_user_holds_in_eval_mode_stay_so(data: MNISTDataModule) -> None:
    net = SmallConvNet(channels=[2], hidden=8)
    held = [layer.eval() for layer in net if isinstance(layer, nn.BatchNorm2d)]
    student = DistillModule(student=net, teachers=[_trained()])
    _fit(student, data)
    assert net.training
    assert not any(layer.training for layer in held)
    lightning.Trainer(**QUIET).test(student, data, verbose=False)  # type: ignore[arg-type]
    assert not any(layer.training for layer in held)


def test_a_module_is_one_teacher_and_a_list_of_modules_many(data: MNISTDataModule) -> None:
    student = DistillModule(student=MLP(hidden=[8]), teachers=_trained())
    _fit(student, data)
    assert [record["source"] for record in student.teacher_records] == ["MLP"]
    assert all(name.startswith("net.") for name in student.state_dict())
    nets = [MLP(hidden=[4]), MLP(hidden=[4])]
    assert listed_teachers(nn.ModuleList(nets)) == listed_teachers(tuple(nets)) == listed_teachers(iter(nets)) == nets
    assert listed_teachers([Path("runs/a"), "runs/b"]) == ["runs/a", "runs/b"]
    assert listed_teachers(Path("runs/a")) == ["runs/a"]


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        (3, "teachers must be paths, modules or a list of them, got int"),
        ({"a": MLP(hidden=[4])}, "got dict"),
        ([MLP(hidden=[4]), None], "each teacher must be a path or a module, got NoneType None"),
    ],
)
def test_what_is_no_teacher(teachers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillModule(student=MLP(hidden=[8]), teachers=teachers)


def test_a_student_is_not_its_own_teacher() -> None:
    net = MLP(hidden=[8])
    given: list[Any] = [net, [net], [TeacherModule(net=net)]]
    for teachers in given:
        with pytest.raises(ValueError, match=r"its own teacher: .* pass copy.deepcopy\(net\)"):
            DistillModule(student=net, teachers=teachers)
    other = MLP(hidden=[8])
    other[2] = net[2]
    with pytest.raises(ValueError, match=r"teacher 1 shares \['2.weight', '2.bias'\] with the student"):
        DistillModule(student=net, teachers=[MLP(hidden=[8]), other])
    DistillModule(student=net, teachers=[copy.deepcopy(net)])


def test_a_teacher_that_cannot_be_copied_is_named() -> None:
    net = MLP(hidden=[4])
    rows: Any = (row for row in [0])
    net.rows = rows
    with pytest.raises(ValueError, match=r"the teacher MLP can't be copied \(cannot pickle 'generator' object\)"):
        load_teachers(net)


def test_teachers_do_not_change(data: MNISTDataModule) -> None:
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
    teacher = FrozenEnsemble([LoadedTeacher(MLP(hidden=[4]), "a net", {})])
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
    shares = losses = module.losses(Batch.of((torch.empty(len(labels), 0), labels)), logits)
    with torch.no_grad():  # the gradients by hand: T (q - p) / n and (q - y) / n
        soft = 0.6 * (3 * (torch.softmax(logits / 3, dim=1) - targets.exp()) / 8).norm()
        hard = 0.4 * ((torch.softmax(logits, dim=1) - torch.nn.functional.one_hot(labels, 10)) / 8).norm()
    assert float(shares["soft_gradient_share"]) == pytest.approx(float(soft / (soft + hard)), abs=1e-6)
    losses["loss"].backward()  # type: ignore[no-untyped-call]  # the graph is still there
    assert logits.grad is not None


def test_label_smoothing_is_checked_and_used() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        DistillModule(student=MLP(hidden=[4]), soft_weight=0.0, label_smoothing=1.0)
    logits, batch = torch.randn(3, 10), Batch.of((torch.zeros(3, 1), torch.tensor([0, 1, 2])))
    plain, smooth = (
        DistillModule(student=MLP(hidden=[4]), soft_weight=0.0, label_smoothing=share).losses(batch, logits)["loss"]
        for share in (0.0, 0.1)
    )
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(smooth, expected)
    assert not torch.equal(plain, smooth)


def test_figures_of_the_teachers_do_not_depend_on_the_soft_loss() -> None:
    class Inverted(SoftLoss):
        def prepare(self, teacher_logits: Tensor) -> Tensor:
            return -teacher_logits

        def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
            return student_logits.sum()

    net, images = MLP(hidden=[4]), torch.rand(6, 1, 28, 28)
    module = DistillModule(student=MLP(hidden=[4]), teachers=net, soft_loss=Inverted())
    module.distiller.load()
    found = module.teacher_log_probs(images)
    assert found is not None
    torch.testing.assert_close(found, torch.log_softmax(net.eval()(images), dim=1))
