"""TensorBoard's tabs hold what they should, and cost nothing where there is no TensorBoard."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from kd_lightning.cli.command_line import main
from kd_lightning.training.dashboard import CHARTS, HYPERPARAMETERS, Dashboard, _hparams_summaries

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
    assert set(events.Tags()["images"]) == {"confusion", "mistakes", "soft targets"}
    last = max(point.step for point in events.Scalars("val/loss"))
    for tag in events.Tags()["images"]:
        (image,) = events.Images(tag)
        assert image.step == last + 1 or image.step == last
        assert image.width > 200
    assert set(_events(runs / "teacher").Tags()["images"]) == {"confusion", "mistakes"}


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
    assert "custom_scalars__config__" in summaries
    assert {"config/text_summary", "command/text_summary"} <= set(summaries)
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    saved = yaml.safe_load((runs / "student" / "config.yaml").read_text())
    assert yaml.safe_load(text) == saved
    assert events.Scalars("test/errors")[-1].value > 0
    charts = {tag for group in CHARTS.values() for _, tags in group.values() for tag in tags}
    assert all(tag.startswith("^") for tag in charts)


def test_other_loggers_work(tmp_path: Path) -> None:
    config = str(CONFIGS / "student.yaml")
    flags = ["--trainer.max_epochs", "1", "--trainer.logger", "lightning.pytorch.loggers.CSVLogger"]
    assert (
        main(["fit", "--config", config, "--run_dir", "run", *flags, "--trainer.logger.save_dir", "csv", *QUIET]) == 0
    )
    (metrics,) = Path("csv").rglob("metrics.csv")
    header = metrics.read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/accuracy", "lr"} <= set(header)


def test_pictures_every_is_checked() -> None:
    with pytest.raises(ValueError, match="pictures_every must be >= 0, got -1"):
        Dashboard({}, pictures_every=-1)


def test_a_run_without_a_value_names_its_column_all_the_same() -> None:
    columns, start, _ = _hparams_summaries({"epochs": 2})
    content = HParamsPluginData.FromString(columns.value[0].metadata.plugin_data.content)
    assert {each.name for each in content.experiment.hparam_infos} == set(HYPERPARAMETERS)
    content = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content)
    assert dict(content.session_start_info.hparams).keys() == {"epochs"}
