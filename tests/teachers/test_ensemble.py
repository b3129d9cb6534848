"""The frozen ensemble."""

import pytest
import torch

from kd_lightning import MLP, SmallConvNet
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher, Precision
from tests.teachers.stores import teacher_net

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_each_teacher_answers_in_turn() -> None:
    nets = [MLP(hidden=[8]), SmallConvNet(channels=[4], hidden=8)]
    ensemble = FrozenEnsemble([LoadedTeacher(net, "a net", {}) for net in nets])
    answers = ensemble(IMAGES)
    assert answers.shape == (2, 5, 10)
    for net, answer in zip(nets, answers, strict=True):
        torch.testing.assert_close(answer, net.eval()(IMAGES))


def test_teachers_of_other_classes_are_refused() -> None:
    ensemble = FrozenEnsemble([LoadedTeacher(MLP(hidden=[8], classes=n), "a net", {}) for n in (10, 7)])
    with pytest.raises(ValueError, match=r"one shape \(batch, classes\), got \[\(5, 7\), \(5, 10\)\]"):
        ensemble(IMAGES)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teachers_precision_is_their_own(precision: Precision) -> None:
    ensemble = FrozenEnsemble([LoadedTeacher(teacher_net(0), "net", {})], precision)
    plain = ensemble(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ensemble(IMAGES)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)
    rounded = not torch.allclose(plain[0], ensemble.nets[0](IMAGES), atol=1e-6)
    assert rounded == (precision == "bfloat16")
