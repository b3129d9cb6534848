"""History keeps what is logged, and draws it."""

from pathlib import Path

from kd_lightning import History


def _filled() -> History:
    history = History()
    for step in range(3):
        history.log_metrics({"train/soft_loss": 2.0 / (step + 1), "train/hard_loss": 1.0, "epoch": 0}, step)
    history.log_metrics({"val/soft_loss": 0.5, "val/accuracy": 0.9}, 2)
    return history


def test_values_are_kept_by_name_and_step() -> None:
    history = _filled()
    assert history.curves["train/soft_loss"] == ([0, 1, 2], [2.0, 1.0, 2.0 / 3])
    assert history.curves["val/accuracy"] == ([2], [0.9])
    assert "epoch" not in history.curves


def test_the_picture_shows_soft_and_hard_loss() -> None:
    (axes,) = _filled().figure().axes
    _, names = axes.get_legend_handles_labels()
    assert names == ["train/soft_loss", "train/hard_loss", "val/soft_loss"]


def test_a_notebook_and_a_file_get_a_png(tmp_path: Path) -> None:
    _filled().save_picture(tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert History()._repr_png_().startswith(b"\x89PNG")  # before anything was logged
