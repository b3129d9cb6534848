"""TensorBoard's tabs hold what they should, and cost nothing where there is no TensorBoard."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from kd_lightning.cli.command_line import main
from kd_lightning.data import InMemoryDataModule
from kd_lightning.modules import TeacherModule
from kd_lightning.training.dashboard import CHARTS, Dashboard, command_text
from kd_lightning.training.hyperparameters import COLUMNS, FIRST_COLUMNS, hparams_summaries, hyperparameters
from kd_lightning.training.validation_pictures import Examined, examine, figures

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "10"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, flags in (
        ("teacher", ["--model.net.hidden", "[40]", "--trainer.max_epochs", "2"]),
        ("student", ["--model.student.hidden", "[20]", "--model.soft_weight", "0.7", "--trainer.max_epochs", "3"]),
    ):
        config = str(CONFIGS / ("teacher.yaml" if name == "teacher" else "distill.yaml"))
        taught = ["--model.teachers", str(root / "teacher")] if name == "student" else []
        assert main(["fit", "--config", config, "--run_dir", str(root / name), *flags, *taught, *QUIET]) == 0
    assert main(["test", "--ckpt_path", str(root / "student"), *QUIET[:2]]) == 0
    return root


def _events(run: Path) -> Any:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def test_pictures_at_the_last_epoch_alone(runs: Path) -> None:
    events = _events(runs / "student")
    assert set(events.Tags()["images"]) == {
        "validation/confusion",
        "validation/mistakes",
        "validation/soft targets",
    }
    last = max(point.step for point in events.Scalars("val/loss"))
    for tag in events.Tags()["images"]:
        (image,) = events.Images(tag)
        assert image.step == last + 1 or image.step == last
        assert image.width == 350 if tag == "validation/confusion" else image.width > 350  # as TensorBoard shows it
    assert set(_events(runs / "teacher").Tags()["images"]) == {"validation/confusion", "validation/mistakes"}


def test_gradient_shares_add_up(runs: Path) -> None:
    events = _events(runs / "student")
    soft = [point.value for point in events.Scalars("train/soft_gradient_share")]
    hard = [point.value for point in events.Scalars("train/hard_gradient_share")]
    assert len(soft) == len(events.Scalars("train/loss"))
    assert all(abs(s + h - 1) < 1e-5 and 0 < s < 1 for s, h in zip(soft, hard, strict=True))


def test_teachers_accuracy_is_a_line(runs: Path) -> None:
    points = _events(runs / "student").Scalars("teachers/0_accuracy")
    assert len(points) >= 3
    assert len({point.value for point in points}) == 1


def test_hyperparameters_text_and_final_figures(runs: Path) -> None:
    events = _events(runs / "student")
    summaries = events.summary_metadata
    content = HParamsPluginData.FromString(summaries["_hparams_/session_start_info"].plugin_data.content)
    values = content.session_start_info.hparams
    assert values["temperature"].number_value == 10.0
    assert values["soft_weight"].number_value == 0.7
    assert values["teachers"].number_value == 1
    assert values["lr"].number_value == 1e-3  # of the default optimizer, before the schedule
    assert values["optimizer"].string_value == "Adam"
    assert values["scheduler"].string_value == "WarmupCosine"
    assert values["label_smoothing"].number_value == 0.0
    assert values["data"].string_value == "mnist5k"
    assert values["train_fraction"].number_value == 1.0
    assert values["net"].string_value == "MLP [20]"
    assert values["parameters"].number_value == 784 * 20 + 20 + 20 * 10 + 10
    content = HParamsPluginData.FromString(
        _events(runs / "teacher").summary_metadata["_hparams_/session_start_info"].plugin_data.content
    )
    assert content.session_start_info.hparams["net"].string_value == "MLP [40], dropout_hidden=0.2"
    assert "custom_scalars__config__" in summaries
    assert {"config/text_summary", "command/text_summary"} <= set(summaries)
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    saved = yaml.safe_load((runs / "student" / "config.yaml").read_text())
    assert yaml.safe_load(text) == saved
    assert events.Scalars("test/errors")[-1].value > 0
    charts = {tag for group in CHARTS.values() for _, tags in group.values() for tag in tags}
    assert all(tag.startswith("^") for tag in charts)


def test_the_losses_of_distillation_come_first(runs: Path) -> None:
    tags = _events(runs / "student").Tags()
    assert "epoch" not in tags["scalars"]
    groups = sorted({tag.partition("/")[0] for tag in (*tags["scalars"], *tags["images"])})
    assert groups[0] == "distillation"
    assert groups[-1] == "validation"  # the pictures
    events = _events(runs / "student")
    for part, copy in (("train", "training"), ("val", "validation")):
        for name in ("soft_loss", "hard_loss"):
            logged, shown = events.Scalars(f"{part}/{name}"), events.Scalars(f"distillation/{name}_{copy}")
            assert [(point.step, point.value) for point in logged] == [(point.step, point.value) for point in shown]


def test_the_command_stands_as_it_was_typed(runs: Path) -> None:
    (text,) = _events(runs / "student").Tensors("command/text_summary")
    lines = [line.strip() for line in text.tensor_proto.string_val[0].decode().splitlines()]
    assert lines[0] == "python -m kd_lightning fit \\"
    assert "--model.student.hidden '[20]' \\" in lines
    assert not any("--data " in line for line in lines)  # which the command line adds


def test_a_long_command_can_still_be_pasted() -> None:
    teachers = ["teacher-" + 40 * "x", "teacher's", "teacher-" + 40 * "y"]
    words = ["python", "-m", "kd_lightning", "fit", "--model.teachers", json.dumps(teachers), "--run_dir", "a b"]
    text = command_text(words)
    assert max(map(len, text.splitlines())) < 90
    read_back = shlex.split(text.replace("\\\n", " "))
    assert json.loads(read_back[5]) == teachers
    assert read_back[:5] + read_back[6:] == words[:5] + words[6:]


class Notes(InMemoryDataModule):
    """Rows of numbers with named classes."""

    num_classes = 3
    class_names = ("low", "middle", "high")

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        labels = torch.arange(90) % 3
        inputs = labels.float().unsqueeze(1) + 0.1 * torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
        return (inputs, labels), (inputs, labels)


class Colours(Notes):
    """Pictures of one colour each."""

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        labels = torch.arange(90) % 3
        images = torch.zeros(90, 3, 4, 4, dtype=torch.uint8)
        images[torch.arange(90), labels] = 255
        return (images, labels.flip(0)), (images, labels)


@pytest.mark.parametrize(("data", "pictures"), [(Notes, {"confusion"}), (Colours, {"confusion", "mistakes"})])
def test_any_input_has_a_confusion(data: type[InMemoryDataModule], pictures: set[str]) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    module, datamodule = TeacherModule(net), data(val_size=30)
    net(torch.zeros(1, *(datamodule.read()[0][0].shape[1:])))
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, datamodule=datamodule)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    examined = examine(trainer, module)
    assert examined is not None
    assert (examined.labels >= 0).all()
    assert {name for name, _ in figures(module, examined, datamodule.class_names)} == pictures
    assert hyperparameters({}, trainer, module)["data"] == data.__name__


def test_names_and_colours_in_the_pictures() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[:, 0] = 1
    examined = Examined(images, torch.tensor([0]), torch.tensor([[0.0, 9.0]]), None)
    drawn = dict(figures(TeacherModule(torch.nn.Linear(1, 2)), examined, ["cat", "dog"]))
    first = drawn["mistakes"].axes[0]
    assert first.get_title() == "cat\nas dog\n100.0 %"
    assert (first.images[0].get_array()[0, 0] == [1, 0, 0]).all()
    assert [tick.get_text() for tick in drawn["confusion"].axes[0].get_yticklabels()] == ["cat", "dog"]


def test_other_loggers_work(tmp_path: Path) -> None:
    config = str(CONFIGS / "student.yaml")
    flags = ["--trainer.max_epochs", "1", "--trainer.logger", "lightning.pytorch.loggers.CSVLogger"]
    assert (
        main(["fit", "--config", config, "--run_dir", "run", *flags, "--trainer.logger.save_dir", "csv", *QUIET]) == 0
    )
    (metrics,) = Path("csv").rglob("metrics.csv")
    header = metrics.read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/accuracy", "lr"} <= set(header)
    assert not any(name.startswith("distillation/") for name in header)  # copies, for TensorBoard only


def test_pictures_every_is_checked() -> None:
    with pytest.raises(ValueError, match="pictures_every must be >= 0, got -1"):
        Dashboard({}, pictures_every=-1)


@pytest.mark.parametrize(
    "linear", [{"start": 0, "end": 0.5}, {"class_path": "kd_lightning.Linear", "init_args": {"start": 0, "end": 0.5}}]
)
def test_a_schedule_shows_its_start(linear: dict[str, Any]) -> None:
    module, trainer = TeacherModule(torch.nn.Linear(1, 2)), Trainer(logger=False, enable_checkpointing=False)
    config = {"model": {"init_args": {"temperature": 4.0, "soft_weight": linear}}}
    values = hyperparameters(config, trainer, module)
    assert (values["temperature"], values["soft_weight"]) == (4.0, 0)
    config["model"]["init_args"] = {"temperature": linear | {"start": 20.0}, "soft_weight": 0.0}
    assert "temperature" not in hyperparameters(config, trainer, module)  # of a plain student


def test_a_soft_loss_is_named() -> None:
    trainer, module = Trainer(logger=False), TeacherModule(torch.nn.Linear(5, 3))
    arguments = {"soft_weight": 0.5, "soft_loss": {"class_path": "kd_lightning.DKD", "init_args": {"beta": 2.0}}}
    assert hyperparameters({"model": {"init_args": arguments}}, trainer, module)["soft_loss"] == "DKD"


def test_a_run_without_a_command_has_no_card_for_it(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 3))
    trainer = Trainer(
        max_epochs=1, logger=logger, callbacks=Dashboard({}), enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(TeacherModule(net), datamodule=Notes(val_size=30))
    logger.experiment.flush()
    tags = _events(tmp_path).summary_metadata
    assert "config/text_summary" in tags
    assert "command/text_summary" not in tags


def test_a_run_without_a_value_names_its_column_all_the_same() -> None:
    columns, start, _ = hparams_summaries({"epochs": 2})
    content = HParamsPluginData.FromString(columns.value[0].metadata.plugin_data.content)
    infos = content.experiment.hparam_infos
    assert {each.name for each in infos} == set(COLUMNS)
    assert {each.name for each in infos if each.differs} == set(FIRST_COLUMNS)
    content = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content)
    assert dict(content.session_start_info.hparams).keys() == {"epochs"}
