"""A teacher of 224 x 224 pictures, other normalisation and other classes teaches a student of 32 x 32, from YAML."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from kd_lightning import InMemoryDataModule, load_exported, main
from kd_lightning.data.inputs import Inputs

HERE = "tests.cli.test_teachers_that_differ"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
OF_TEACHER = ((5, 0), (3,), (1,), (2,))  # the teacher's classes of each of the student's; its class 4 is none of them
INPUTS: list[dict[str, Any]] = [
    {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [224, 224]}},
    {"class_path": "torchvision.transforms.v2.Normalize", "init_args": {"mean": MEAN, "std": STD}},
]


class Corners(InMemoryDataModule):
    """Colour pictures of 32 x 32 with one bright corner; which one is the class."""

    unit, num_classes = "pictures", 4

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return corners(300, seed=0), corners(100, seed=1)


class Crops(Corners):
    """Each picture in two sizes."""

    def to_inputs(self, raw: Tensor, views: Tensor | None) -> Inputs:
        return {"small": raw, "big": F.interpolate(raw, 224)}


class Pairs(LightningDataModule):
    """The same, from torch's own loaders: each example is ((small, big), label)."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*corners(300, seed=0)), 50, shuffle=True, collate_fn=_pair)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*corners(100, seed=2)), 100, collate_fn=_pair)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*corners(100, seed=1)), 100, collate_fn=_pair)


def _pair(examples: list[tuple[Tensor, Tensor]]) -> list[Any]:
    pictures = torch.stack([picture for picture, _ in examples])
    return [[pictures, F.interpolate(pictures, 224)], torch.stack([label for _, label in examples])]


def corners(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    pictures = 0.5 * torch.rand(count, 3, 32, 32, generator=random)
    labels = torch.randint(4, (count,), generator=random)
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        top, left = 16 * (label // 2), 16 * (label % 2)
        picture[:, top : top + 16, left : left + 16] += 0.15
    return pictures, labels


class Coarse(nn.Module):
    """A linear net over 7 x 7 patches of 224 x 224 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 7 * 7, 6)

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[1:] != (3, 224, 224):
            raise RuntimeError("only pictures of 224 x 224")
        logits: Tensor = self.head(F.avg_pool2d(pictures, 32).flatten(1))
        return logits


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a Coarse that was trained on normalised pictures, in its own classes."""
    torch.manual_seed(0)
    pictures, labels = corners(400, seed=3)
    patches = F.avg_pool2d(v2.Normalize(MEAN, STD)(v2.Resize([224, 224])(pictures)), 32).flatten(1)
    theirs = torch.tensor([OF_TEACHER[label][n % len(OF_TEACHER[label])] for n, label in enumerate(labels.tolist())])
    net = Coarse()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(net.head(patches), theirs).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "coarse.safetensors"
    save_file(net.state_dict(), path)
    return path


def _config(weights: Path, data: str = "Corners") -> dict[str, Any]:
    student = {"class_path": "kd_lightning.MLP", "init_args": {"hidden": [16], "inputs": 3 * 32 * 32, "classes": 4}}
    teacher = {
        "net": {"class_path": f"{HERE}.Coarse"},
        "weights": str(weights),
        "inputs": copy.deepcopy(INPUTS),
        "classes": [list(classes) if len(classes) > 1 else classes[0] for classes in OF_TEACHER],
    }
    return {
        "model": {
            "class_path": "kd_lightning.DistillModule",
            "init_args": {
                "student": student,
                "teachers": [{"class_path": "kd_lightning.Teacher", "init_args": teacher}],
                "temperature": 2.0,
                "soft_targets": "stored",
            },
        },
        "data": {"class_path": f"{HERE}.{data}", "init_args": {"val_size": 60, "batch_size": 40}},
        "trainer": {"max_epochs": 3, "enable_progress_bar": False, "logger": False},
    }


def _teacher(config: dict[str, Any]) -> dict[str, Any]:
    of_first: dict[str, Any] = config["model"]["init_args"]["teachers"][0]["init_args"]
    return of_first


def _fit(config: dict[str, Any], run: str, *flags: str) -> int:
    Path("config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return main(["fit", "--config", "config.yaml", "--run_dir", run, *flags])


def _student(run: str) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return weights


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")][-1]


@pytest.mark.slow
def test_it_teaches_stored_live_and_in_a_resumed_run(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = _config(weights)
    assert _fit(config, "straight") == 0
    assert " on 300 pictures, " in caplog.text
    (record,) = json.loads(Path("straight/teachers.json").read_text(encoding="utf-8"))
    assert record["source"] == str(weights)
    assert record["examples"] == 60
    assert record["errors"] <= 3
    kept = yaml.safe_load(Path("straight/config.yaml").read_text(encoding="utf-8"))
    assert _teacher(kept)["classes"] == _teacher(config)["classes"]
    stop = ["--trainer.callbacks+", "tests.cli.test_command_line.Stop", "--trainer.callbacks.at", "8"]
    assert _fit(config, "broken", "--save_every", "0", *stop) == 1
    assert _fit(config, "broken", "--ckpt_path", "last") == 0
    straight, broken = _student("straight"), _student("broken")
    assert all(torch.equal(tensor, broken[name]) for name, tensor in straight.items())
    assert _fit(config, "live", "--model.soft_targets", "live") == 0
    for name, tensor in _student("live").items():
        torch.testing.assert_close(tensor, straight[name], atol=2e-3, rtol=2e-3)  # the store holds float16
    assert main(["test", "--ckpt_path", "straight", "--trainer.enable_progress_bar", "false"]) == 0
    test = json.loads(Path("straight/metrics.json").read_text(encoding="utf-8"))["test"]
    assert test["errors"] < 50  # of 100 pictures; 75 by chance
    assert test["teacher_errors"] <= 5


@pytest.mark.slow
def test_a_run_keeps_its_teachers(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resumed only with the same adapter and weight, and not deleted by a student that it is to teach."""
    assert _fit(_config(weights), "run", "--trainer.max_epochs", "1") == 0
    for change in ({"weight": 2.0}, {"classes": [0, 3, 1, 2]}, {"inputs": INPUTS[:1]}):
        config = _config(weights)
        _teacher(config).update(change)
        assert _fit(config, "run", "--ckpt_path", "last") == 1
        assert "this run began with other teachers" in _error(capsys)
    config["model"]["init_args"]["teachers"] = [
        {"class_path": "kd_lightning.Teacher", "init_args": {"net": "run", "weight": 2.0}}
    ]
    assert _fit(config, "run", "--overwrite", "true") == 1
    assert "lies in the run that is to be overwritten" in _error(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [3, 1, 2, 0]}, "is no better than chance: "),
        (
            {"classes": None},
            "got student (60, 4) and teachers (60, 6); map the classes of a teacher that has",
        ),
        ({"classes": [0, 1, 2, 9]}, "classes name class 9, but Coarse has 6 classes, counted from 0"),
        ({"inputs": None}, "coarse.safetensors failed on inputs of shape (60, 3, 32, 32): only pictures of 224 x 224"),
        ({"weights": "nowhere.pt"}, "error: no weights file nowhere.pt"),
        ({"net": "nowhere"}, "need a net to be loaded into, got the path nowhere"),
        ({"weight": -1.0}, "teacher weights must be finite, >= 0 and not all 0, got [-1.0]"),
        ({"input": []}, "kd_lightning.Teacher has no option input; did you mean inputs?"),
        (
            {"inputs": ["torchvision.transforms.v2.Nope"]},
            "teachers.inputs: module 'torchvision.transforms.v2' has no",
        ),
    ],
)
def test_what_cannot_teach_is_said(
    change: dict[str, Any], message: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(weights)
    _teacher(config).update(change)
    assert _fit(config, "run") == 1
    assert message in _error(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "keys"), [("Crops", ("small", "big")), ("Pairs", (0, 1))])
def test_student_and_teacher_get_other_pictures(
    data: str, keys: tuple[Any, Any], weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A crop for each: in a dict, stored; in a tuple from torch's own loader, live. Trained, tested, exported."""
    config = _config(weights, data)
    picks = [{"class_path": "kd_lightning.Pick", "init_args": {"key": key}} for key in keys]
    model = config["model"]["init_args"]
    model["student"] = {
        "class_path": "kd_lightning.AdaptedNet",
        "init_args": {"net": model["student"], "inputs": picks[0]},
    }
    _teacher(config)["inputs"] = [picks[1], INPUTS[1]]
    if data == "Pairs":
        model["soft_targets"] = "auto"
        del config["data"]["init_args"]
    config["trainer"]["logger"] = True
    assert _fit(config, "run") == 0
    assert f"soft targets: {'live' if data == 'Pairs' else 'stored'}" in caplog.text
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["test", "--ckpt_path", "run", *quiet]) == 0
    metrics = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["errors"] < 50
    assert metrics["test"]["teacher_errors"] <= 5
    if data == "Crops":
        assert main(["predict", "--ckpt_path", "run", *quiet]) == 0
    kind = "pt2" if data == "Crops" else "safetensors"
    assert main(["export", "run", "--format", kind]) == 0
    if kind == "safetensors":
        assert load_exported("run/student.safetensors")(corners(5, seed=1)[0]).shape == (5, 4)  # only its own picture
    taught = {"class_path": "kd_lightning.Teacher", "init_args": {"net": "run"}}  # the student's net picks by itself
    model["teachers"] = [taught]
    assert _fit(config, "next", "--trainer.max_epochs", "1") == 0
