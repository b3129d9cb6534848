"""The scripts' own logic: what a row needs, what a user's configuration is compared with, and one whole small run."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from scripts.claims import best_offset, matching_offset
from scripts.reproduce import _claimed, own_rows, run, with_needs
from scripts.rows import ENSEMBLE, GROUPS, TABLE

ROOT = Path(__file__).parent.parent


def test_rows_bring_their_teachers() -> None:
    assert [(row.name, seeds) for row, seeds in with_needs(TABLE, ["same-view-300"])] == [
        ("best-teacher", 1),
        ("same-view-300", 3),
    ]
    first, seeds = with_needs(ENSEMBLE, ["ensemble-800"])[0]
    assert (first.name, seeds) == ("teacher", 10)
    assert len(with_needs(TABLE)) == len(TABLE)
    final = [row for group in GROUPS.values() if group is not GROUPS["tuning"] for row in group]
    assert len({row.name for row in final}) == len({row._replace(seeds=0) for row in final})
    with pytest.raises(ValueError, match="no row teachr; there are best-teacher, plain-800, "):
        with_needs(TABLE, ["teachr"])


def test_a_configuration_of_ones_own_against_its_plain_student(tmp_path: Path) -> None:
    teacher = yaml.safe_load((ROOT / "configs/quickstart/teacher.yaml").read_text())
    teacher["model"]["init_args"]["net"]["init_args"] = {"hidden": [32]}
    teacher["trainer"] = {"max_epochs": 2, "enable_progress_bar": False}
    student = yaml.safe_load((ROOT / "configs/quickstart/distill.yaml").read_text())
    student["model"]["init_args"]["student"]["init_args"] = {"hidden": [8]}
    student["model"]["init_args"]["teachers"] = "runs/mnist-table-own/mine-teacher-0"
    student["trainer"] = teacher["trainer"]
    for name, content in (("mine-teacher", teacher), ("mine", student)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert [row.name for row in own_rows(tmp_path / "mine-teacher.yaml", 2)] == ["mine-teacher"]
    run(config="mine-teacher.yaml", seeds=1, output="results")
    run(config="mine.yaml", seeds=2, output="results")
    plain, distilled = json.loads((tmp_path / "results" / "mine.json").read_text())
    assert (plain["row"], distilled["row"]) == ("mine-plain", "mine")
    assert plain["n"] == distilled["n"] == 2
    assert distilled["errors"] == [
        json.loads((tmp_path / "runs/mnist-table-own" / f"mine-{seed}" / "metrics.json").read_text())["test"]["errors"]
        for seed in (0, 1)
    ]
    line = f"| mine | – | {distilled['mean']:.1f} ± {distilled['sd']:.1f} | 2 |"
    assert line in (tmp_path / "results" / "mine.md").read_text()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(student | {"save_every": 1}))
    with pytest.raises(ValueError, match="mine-plain-0 was done with other settings"):
        run(config="mine.yaml", seeds=2, output="results")
    with pytest.raises(FileNotFoundError, match=r"no configuration nowhere.yaml"):
        run(config="nowhere.yaml")


def test_calls_side_by_side_share_the_runs(tmp_path: Path) -> None:
    with _claimed(tmp_path / "deep" / ".lock") as first, _claimed(tmp_path / "deep" / ".lock") as second:
        assert (first, second) == (True, False)
    with _claimed(tmp_path / "deep" / ".lock") as again:
        assert again


def test_a_bias_is_matched_to_the_class_frequencies_without_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (4000,), generator=generator)
    logits = torch.randn(4000, 10, generator=generator)
    logits[torch.arange(4000), labels] += 4
    biased = logits.clone()
    biased[:, 3] -= 5.0
    share = float((labels == 3).float().mean())
    offset = matching_offset(biased, [3], share)
    assert offset == pytest.approx(5.0, abs=0.5)
    assert best_offset(biased, labels, [3]) == pytest.approx(5.0, abs=1.0)
