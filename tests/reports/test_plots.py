"""Axes are labelled so that they can be read and compared."""

import pytest

from kd_lightning.reports import plots


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-4, 3.0, ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (0.04, 2.0, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (0.8, 1.9, ["0.8", "1.2", "1.6"]),
        (1e-12, 1.0, None),
        (0.19, 60.0, ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]),
        (0.91, 0.93, None),
        (4.0, 4.0, None),
    ],
)
def test_a_logarithmic_axis_has_three_labels_or_more(low: float, high: float, labels: list[str] | None) -> None:
    figure = plots.curves({"train/loss": ([0, 1], [high, low])}, "nats", log=True)
    plots.as_png(figure)
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert all(bottom <= tick <= top for tick in axes.get_yticks())
    assert 3 <= len(set(shown)) == len(shown) <= 8
    assert labels is None or shown == labels


@pytest.mark.parametrize(("classes", "shared"), [(10, True), (100, False)])
def test_soft_targets_share_a_scale(classes: int, shared: bool) -> None:
    flat = [1 / classes] * classes
    sharp = [1.0] + [0.0] * (classes - 1)
    figure = plots.softened_targets([[0.0]], 0, {"label": sharp, "teachers, T = 20": flat})
    picture, first, second = figure.axes
    assert picture.get_xlabel() == "its bar is orange"
    assert (first.get_ylim() == second.get_ylim()) is shared
    assert first.get_ylim()[1] >= 1
