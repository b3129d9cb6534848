"""A study is read from its file, or made of a configuration."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_lightning.reports.study_file import read_study
from tests.reports.study_text import study_of

STUDIES = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").rglob("*.yaml")
    if "rows" in yaml.safe_load(path.read_text())
)


def test_missing_files_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"row x has the configuration no.yaml, but there is no file no.yaml"):
        study_of("rows: [{name: x, configs: [no.yaml]}]")
    with pytest.raises(FileNotFoundError, match=r"no study or configuration nowhere.yaml"):
        read_study(Path("nowhere.yaml"))


def test_a_distill_configuration_is_compared_with_its_plain_student() -> None:
    model: dict[str, Any] = {"class_path": "kd_lightning.DistillModule", "init_args": {"teachers": "runs/t"}}
    Path("mine.yaml").write_text(yaml.safe_dump({"model": model}))
    study = read_study(Path("mine.yaml"))
    plain, distilled = study.rows
    assert (study.name, plain.name, distilled.name) == ("mine-study", "mine-plain", "mine")
    assert plain.options == {"model.soft_weight": 0.0, "model.teachers": None}
    assert distilled.options == {}
    assert plain.seeds == distilled.seeds == 5
    model["init_args"]["feature_losses"] = []
    Path("mine.yaml").write_text(yaml.safe_dump({"model": model}))
    assert read_study(Path("mine.yaml")).rows[0].options["model.feature_losses"] is None
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": "kd_lightning.TeacherModule"}}))
    assert [row.name for row in read_study(Path("mine.yaml")).rows] == ["mine"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_study_is_read(path: Path) -> None:
    study = read_study(path)
    command = next(line for line in path.read_text().splitlines() if "python -m kd_lightning" in line)
    assert f"study configs/{path.parent.name}/{path.name}" in command
    assert study.name.startswith(path.parent.name)
    assert all(row.flags() for row in study.rows)


def test_studies_have_folders_of_their_own() -> None:
    names = [read_study(path).name for path in STUDIES]
    assert len(set(names)) == len(names) > 8


def test_a_verdict_has_three_rows_with_the_same_seeds(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "quickstart" / "distill.yaml"
    study = read_study(config, verdict=True)
    assert [row.name for row in study.rows] == ["plain", "smoothed", "distilled"]
    plain, smoothed, distilled = study.rows
    assert plain.options == {"model.soft_weight": 0.0, "model.teachers": None}
    assert smoothed.options == plain.options | {"model.label_smoothing": 0.1}
    assert distilled.options == {}
    assert len({row.seeds for row in study.rows}) == 1
    with pytest.raises(ValueError, match="--verdict expected the configuration of a DistillModule"):
        read_study(config.with_name("teacher.yaml"), verdict=True)
