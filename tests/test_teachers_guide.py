"""docs/teachers.md, as a reader would follow it: its files, its commands, its Python."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.models import resnet18

from kd_lightning import main
from tests.guides import DOCS, arguments_of, blocks, run_python

GUIDE = DOCS / "teachers.md"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
ANY = ["--model.teachers_must_beat_chance", "false"]  # the weights are random here
ANIMALS = '''
import torch
from kd_lightning import InMemoryDataModule
from torch.nn.functional import interpolate


class Animals(InMemoryDataModule):
    """What stands for the reader's own pictures: three colours, with noise."""

    unit, num_classes = "pictures", 3
    class_names = ("cat", "fox", "bear")

    def read(self):
        def make(count: int, seed: int):
            random = torch.Generator().manual_seed(seed)
            labels = torch.randint(3, (count,), generator=random)
            colours = 0.2 * torch.nn.functional.one_hot(labels, 3)[:, :, None, None]
            return colours + 0.8 * torch.rand(count, 3, 32, 32, generator=random), labels

        return make(70, seed=0), make(20, seed=1)


class AnimalsTwice(Animals):
    def to_inputs(self, raw, views):
        return {"small": raw, "big": interpolate(raw, 224)}
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's files, pictures and a trained teacher, with random weights in place of ImageNet's."""
    (tmp_path / "my_animals.py").write_text(ANIMALS, encoding="utf-8")
    for name, text in zip(("my_student", "my_crops"), blocks(GUIDE, "yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (from_python,) = blocks(GUIDE, "python")
    (tmp_path / "from_python.py").write_text(
        from_python.replace("temperature=4.0", "temperature=4.0, teachers_must_beat_chance=False"), encoding="utf-8"
    )
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.syspath_prepend(tmp_path)
    teacher = yaml.safe_load(blocks(GUIDE, "yaml")[0])
    net = teacher["model"]["init_args"]["student"]
    teacher["model"] = {"class_path": "kd_lightning.TeacherModule", "init_args": {"net": net}}
    (tmp_path / "my_teacher.yaml").write_text(yaml.safe_dump(teacher), encoding="utf-8")
    assert main(["fit", "--config", "my_teacher.yaml", "--run_dir", "runs/animals/teacher", *QUIET]) == 0
    return tmp_path


@pytest.mark.slow
def test_the_guides_commands_train(project: Path) -> None:
    for arguments in arguments_of("\n".join(blocks(GUIDE, "bash"))):
        flags = [*QUIET, *ANY] if arguments[0] == "fit" else []
        assert main([*arguments, *flags]) == 0, arguments
    own, imagenet = json.loads((project / "runs/animals/student/teachers.json").read_text(encoding="utf-8"))
    assert own["errors"] < 10
    assert (own["weight"], imagenet["weight"]) == (1.0, 2.0)
    assert imagenet["source"] == "resnet18-f37072fd.pth"
    assert (project / "runs/animals/crops/student.pt2").is_file()


@pytest.mark.slow
def test_the_guides_python_trains(project: Path) -> None:
    run_python(project / "from_python.py")
