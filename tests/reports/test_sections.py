"""What the page's pictures show of several runs."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from kd_lightning.reports.rows import group_names, group_runs
from kd_lightning.reports.run_folders import find_runs, read_run
from kd_lightning.reports.sections import Picture, sections
from tests.reports.made_runs import make_run, student

CSV = "step,train/loss,train/soft_loss,train/hard_loss,val/accuracy\n0,1.5,2.5,1.5,0.4\n1,1.0,1.5,1.2,0.6\n"


def _pictures(root: Path) -> dict[str, Picture]:
    groups = group_runs([read_run(folder) for folder in find_runs([str(root)])])
    return {each.name: each for section in sections(groups, group_names(groups)) for each in section.pictures}


def _figure(picture: Picture) -> Figure:
    assert isinstance(picture.content, Figure)
    return picture.content


@pytest.mark.parametrize(
    ("seeds", "named", "caption"),
    [
        ((3, 3), ["distilled", "plain"], "accuracy, validation images, seed 3"),
        ((3, 4), ["distilled, seed 4", "plain, seed 3"], "accuracy, validation images"),
    ],
)
def test_curves_side_by_side_name_their_seeds(
    seeds: tuple[int, int], named: list[str], caption: str, tmp_path: Path
) -> None:
    for name, seed, weight in zip(("plain", "distilled"), seeds, (0.0, 0.9), strict=True):
        folder = make_run(tmp_path, name, 5, seed, model=student(weight))
        (folder / "metrics.csv").write_text(CSV, encoding="utf-8")
    picture = _pictures(tmp_path)["accuracy"]
    assert picture.caption == caption
    assert sorted(_figure(picture).axes[0].get_legend_handles_labels()[1]) == named


@pytest.mark.parametrize(
    ("csv", "unit"),
    [
        (CSV, "nats (soft: T² · nats), log scale"),
        ("step,train/loss,train/hard_loss\n0,1.5,1.5\n1,1.2,1.2\n", "nats, log scale"),
        ("step,train/loss,train/hard_loss\n0,1.5,0.0\n1,0.0,1.2\n", "nats"),
    ],
)
def test_the_unit_of_the_loss(csv: str, unit: str, tmp_path: Path) -> None:
    (make_run(tmp_path, "one", 5) / "metrics.csv").write_text(csv, encoding="utf-8")
    assert _figure(_pictures(tmp_path)["one-loss"]).axes[0].get_ylabel() == unit
