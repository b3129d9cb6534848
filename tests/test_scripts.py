"""The scripts' own logic: correcting a bias without labels, and counting what trials of faults lost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.benchmarks.pictures import PictureFits, copy_some
from scripts.benchmarks.turns import stored_cost
from scripts.claims import best_offset, claims_table, matching_offset
from scripts.method_picture import method_picture
from scripts.reliability import run as try_all
from scripts.reliability import summary
from tests.data.pictures import draw_pictures


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


def test_the_table_of_the_claims_is_that_of_all_kept_runs() -> None:
    def corrected(errors: int, seen: int) -> dict[str, object]:
        each = {"offset": 0.0, "errors": errors, "errors on these": seen}
        return {"row": "omitted-3", "none": each, "matching": each, "best on test": each}

    few = [{"row": "few-soft", "errors": errors, "training accuracy": 1.0} for errors in (40, 44)]
    lines = claims_table([corrected(10, 1), corrected(12, 3), *few], {"omitted-3": "no 3", "few-soft": "few"})
    assert lines[0] == ["no 3", "none", "11.0 ± 1.4", "2.0 ± 1.4"]
    assert [line[:2] for line in lines[1:3]] == [["no 3", "matching"], ["no 3", "best on test"]]
    assert lines[3:] == [["few", "training accuracy 100.0 ± 0.0 %", "42.0 ± 2.8", "–"]]


def test_what_stored_teachers_cost_is_the_ratio_of_each_turn(tmp_path: Path) -> None:
    class Fake:
        root = tmp_path

        def __init__(self) -> None:
            self.times = 0

        def fit_alone(self, width: int, batch: int, teachers: int, *flags: str) -> float:
            self.times += 1
            return 2.0 if teachers else 1.0 if width == 800 else 4.0

    (tmp_path / "teachers" / "0").mkdir(parents=True)
    bench: Any = Fake()
    figures = stored_cost(bench, 3)
    assert (figures["2x800, ratio"], figures["2x300, ratio"]) == (2.0, 0.5)
    assert figures["2x800, 1 stored teachers, s per epoch"] == 2.0
    assert bench.times == 12


@pytest.mark.slow
def test_live_and_stored_teachers_are_timed_on_pictures(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "mine", each=12, side=32)
    assert copy_some(tmp_path / "mine", tmp_path / "some", 20) == 18
    teacher = json.dumps(
        {"class_path": "kd_lightning.SmallConvNet", "init_args": {"channels": [4], "side": 32, "in_channels": 3}}
    )
    figures = PictureFits(tmp_path / "fits", tmp_path / "mine", teacher, images=30, epochs=1, views=2).seconds()
    assert figures["images"] == 30
    assert figures["live / stored"] > 0
    with pytest.raises(SystemExit, match=r"pictures must name a folder with a folder of .* got nowhere"):
        copy_some(Path("nowhere"), tmp_path / "none", 5)


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


def test_the_picture_of_the_method_names_its_parts() -> None:
    axes, *_ = method_picture().axes
    shown = {text.get_text() for text in axes.texts}
    assert {"teachers", "student", "soft loss", "T² · KL(p ‖ q)", "hard loss", "loss"} <= shown
