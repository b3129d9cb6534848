"""Folds are added up, and a recording's posteriors drawn, by scripts/speech.py."""

from pathlib import Path

import numpy as np
import pytest

from kd_lightning import MLP, SpokenDigitsDataModule
from kd_lightning.metrics.classification import error_interval
from scripts import speech
from tests.data.spoken import write_corpus


def _line(
    row: str, frames: int, errors: float, digits: float, interval: tuple[float, float] | None
) -> dict[str, object]:
    runs = [] if interval is None else [{"examples": frames, "error_rate_interval": interval}]
    return {"row": row, "n": 2, "mean": errors, "sequences": {"count": 500, "mean": digits}, "runs": runs}


def test_folds_are_added_up() -> None:
    lines = [
        _line("teacher-ann", 1000, 300, 20, (0.27, 0.33)),
        _line("teacher-ann x 10", 1000, 250, 10, None),
        _line("distilled-ann", 1000, 260, 11, (0.24, 0.28)),
        _line("teacher-bob", 3000, 600, 5, (0.18, 0.22)),
        _line("teacher-bob x 10", 3000, 500, 4, None),
        _line("distilled-bob", 3000, 540, 4.5, (0.17, 0.19)),
    ]
    single, ensemble, distilled = speech.totals(lines)
    assert single[:5] == ("teacher", 2, 2, 4000, 900)
    assert single.margin == pytest.approx(((1000 * 0.03) ** 2 + (3000 * 0.02) ** 2) ** 0.5 / 4000)
    assert (ensemble.name, ensemble.frame_errors, ensemble.margin, ensemble.digit_errors) == ("ensemble", 750, None, 14)
    assert (distilled.utterances, distilled.digit_errors) == (1000, 15.5)
    assert speech.gain_kept([single, ensemble, distilled]) == pytest.approx((900 - 800) / (900 - 750))
    text = speech.table([single, ensemble, distilled])
    low, high = error_interval(14, 1000)
    assert f"| ensemble | 81.25 | 14.0 | 1.40 ({100 * low:.2f} to {100 * high:.2f}) | 2 x 2 |" in text
    assert single.margin is not None
    assert f"| 77.50 ({77.5 - 100 * single.margin:.2f} to {77.5 + 100 * single.margin:.2f}) |" in text


def test_a_recording_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = SpokenDigitsDataModule(str(write_corpus(tmp_path / "corpus", speakers=("ann", "bob"))))
    data.setup("test")
    net = MLP(hidden=[8], inputs=1040, classes=30, mean=0.0, std=1.0)
    monkeypatch.setattr(speech, "load_teachers", lambda runs: [type("Loaded", (), {"net": net})])
    figure = speech.recording_posteriors({"one": Path("a"), "two": Path("b")}, data, "7_bob_0")
    assert [axes.get_title() for axes in figure.axes] == ["", "one", "two"]
    frames = int(data.sequences("test").starts.diff()[10 + 7])
    shapes = [np.asarray(axes.images[0].get_array()).shape for axes in figure.axes]
    assert shapes == [(40, frames), (30, frames), (30, frames)]
