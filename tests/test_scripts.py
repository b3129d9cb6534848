"""The scripts' own logic: what a row needs, what a user's configuration is compared with, and one whole small run."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from scripts.claims import best_offset, matching_offset
from scripts.reliability import run as try_all
from scripts.reliability import summary
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


def _trial(name: str, number: int, *lost: str, left: tuple[str, ...] = ()) -> dict[str, object]:
    return {"kind": name, "number": number, "how": "", "lost": list(lost), "left": list(left), "seconds": 1.0}


MACHINE = {"processor": "2 cores of X", "python": "3", "torch": "2", "lightning": "2", "measured_at": "2026-01-02T03"}


def test_a_table_of_trials_counts_what_was_lost() -> None:
    trials = [
        _trial("kill-fit", 0),
        _trial("kill-fit", 1, "curve a", "curve b"),
        _trial("kill-fit", 2, "curve a", left=(".x.N.part",)),
        _trial("log", 0),
    ]
    text = summary({"command": "it", "machine": MACHINE, "trials": trials})
    lines = text.splitlines()
    assert lines[0].startswith("Written by `it`: 4 trials, of which 2 lost something. On 2 cores of X, torch 2, ")
    killed, unwritable = (line.strip("| ").split(" | ") for line in lines[4:])
    assert killed[0] == "kill -9 of a fit"
    assert (killed[1], killed[3]) == ("3", "2")
    assert killed[4] == "curve a (2x); curve b (1x); left behind: .x.N.part (1x)"
    assert unwritable[3:] == ["0", "nothing"]


def test_trials_of_another_state_of_the_code_are_not_added_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no kind kill-all; there are kill-fit, "):
        try_all(only=["kill-all"])
    before = {"seed": 0, "code": "older", "machine": MACHINE, "trials": [_trial("kill-fit", 0)]}
    (tmp_path / "reliability.json").write_text(json.dumps(before))
    with pytest.raises(ValueError, match="start again with --overwrite true"):
        try_all(only=["kill-fit"], output=str(tmp_path))
    assert json.loads((tmp_path / "reliability.json").read_text()) == before


@pytest.mark.faults
def test_a_trial_is_tried_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trials in (1, 0):  # the second call finds it done
        try_all(only=["kill-fit"], times=1, workers=1, output=str(tmp_path))
        (kept,) = json.loads((tmp_path / "reliability.json").read_text())["trials"]
        assert (kept["kind"], kept["number"], kept["lost"], kept["left"]) == ("kill-fit", 0, [], [])
        assert "SIGKILL" in kept["how"]
        assert capsys.readouterr().out.count("nothing lost") == trials
    assert "| kill -9 of a fit | 1 | " in (tmp_path / "reliability.md").read_text()
