"""Teachers that differ: their weights, inputs, classes and share, and what is said of those that can't teach."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

from kd_lightning import MLP, AdaptedNet, DistillModule, Normalize, Teacher, load_teachers
from kd_lightning.nets.description import fingerprint
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher, weights_of
from kd_lightning.teachers.named import listed_teachers

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
OLD_RUN = Path(__file__).parents[1] / "files" / "before_rooms" / "teacher"


def _net(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(hidden=[8])


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_weights_are_read_from_a_file_into_a_copy(name: str, tmp_path: Path) -> None:
    trained, mine = _net(1), _net(2)
    if name.endswith(".pt"):
        torch.save({"state_dict": trained.state_dict()}, tmp_path / name)
    else:
        save_file(trained.state_dict(), tmp_path / name)
    before = fingerprint(mine)
    (loaded,) = load_teachers(Teacher(mine, weights=tmp_path / name))
    torch.testing.assert_close(loaded.net.eval()(IMAGES), trained.eval()(IMAGES))
    assert loaded.source == str(tmp_path / name)
    assert fingerprint(mine) == before
    assert fingerprint(loaded.net) == fingerprint(trained)  # nothing around it, so older runs go on with it


def test_weights_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    named = Teacher(_net(), weights="nowhere.pt")  # it may be built where its files are not
    with pytest.raises(FileNotFoundError, match=r"^no weights file nowhere.pt$"):
        load_teachers(named)
    torch.save(MLP(hidden=[9]).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"the weights in .*other.pt do not fit MLP: size mismatch"):
        load_teachers(Teacher(_net(), weights=tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"weights a.pt need a net to be loaded into, got the path runs/a"):
        Teacher("runs/a", weights="a.pt")


@pytest.mark.parametrize("inputs", [Normalize(), [nn.Identity(), nn.Sequential(Normalize())]], ids=["one", "inner"])
def test_nothing_is_measured_for_a_teachers_inputs(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"^Normalize in a teacher's inputs needs mean and std, got none: only"):
        Teacher(_net(), inputs=inputs)
    Teacher(_net(), inputs=[nn.Identity(), Normalize(0.1, 0.3)])


def test_a_run_gets_inputs_classes_and_a_weight() -> None:
    named = Teacher(OLD_RUN, inputs=[v2.Resize([28, 28])], classes=[[0, 1], 7], weight=3.0)
    plain, adapted = load_teachers([str(OLD_RUN), named])
    assert plain.source == adapted.source
    assert plain.data == adapted.data
    assert (plain.weight, adapted.weight) == (1.0, 3.0)
    assert isinstance(adapted.net, AdaptedNet)
    logits = plain.net.eval()(IMAGES)
    expected = torch.stack([logits[:, :2].logsumexp(1), logits[:, 7]], dim=1)
    torch.testing.assert_close(adapted.net.eval()(IMAGES), expected)
    assert FrozenEnsemble([adapted])(IMAGES).shape == (1, 5, 2)
    assert adapted.record()["parameters"] == plain.record()["parameters"]


def test_teachers_are_listed_as_they_are() -> None:
    named = Teacher(_net())
    assert listed_teachers(named) == [named]
    assert listed_teachers([named, "runs/a", Path("runs/b")]) == [named, "runs/a", "runs/b"]
    with pytest.raises(ValueError, match=r"each teacher must be a path or a module, got int 3"):
        listed_teachers([named, 3])  # type: ignore[list-item]


def test_a_teacher_that_shares_weights_with_the_student_is_refused() -> None:
    student = _net()
    with pytest.raises(ValueError, match="the student is its own teacher"):
        DistillModule(student=student, teachers=Teacher(student, classes=list(range(10))))


def _loaded(*weights: float) -> list[LoadedTeacher]:
    return load_teachers([Teacher(_net(), weight=weight) for weight in weights])


def test_a_teachers_weight_counts_in_the_average() -> None:
    assert weights_of(_loaded(1.0, 1.0), None) is None
    assert weights_of(_loaded(1.0, 1.0), [2.0, 1.0]) == [2.0, 1.0]
    assert weights_of(_loaded(1.0, 3.0), None) == [1.0, 3.0]
    message = "given once, got teacher_weights [2.0, 1.0] and [1.0, 3.0] as the weight of each Teacher"
    with pytest.raises(ValueError, match=re.escape(message)):
        weights_of(_loaded(1.0, 3.0), [2.0, 1.0])
    with pytest.raises(ValueError, match="teacher weights must be finite, >= 0"):
        weights_of(_loaded(-1.0), None)


class Cut(nn.Module):
    """A net of small pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, images: Any) -> Any:
        return self.head(images.flatten(1))


def test_a_teacher_whose_net_does_not_take_its_inputs_is_named() -> None:
    ensemble = FrozenEnsemble(load_teachers(Teacher(Cut(), inputs=v2.Resize([5, 5]))))
    with pytest.raises(ValueError, match=r"teacher Cut failed on inputs of shape \(5, 1, 28, 28\): mat1 and mat2"):
        ensemble(IMAGES)
