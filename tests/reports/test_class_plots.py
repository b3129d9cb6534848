"""Small bins are joined, classes have their names."""

import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from kd_lightning.reports import class_plots, plots
from kd_lightning.reports.class_plots import joined_bins


def _bin(count: int, confidence: float, accuracy: float) -> dict[str, float]:
    return {"count": count, "confidence": confidence, "accuracy": accuracy}


def test_bins_of_few_predictions_are_joined() -> None:
    bins = [_bin(0, 0.0, 0.0), _bin(1, 0.2, 1.0), _bin(2, 0.3, 0.0), _bin(9, 0.4, 1 / 3), _bin(30, 0.9, 0.9)]
    first, last = joined_bins([*bins, _bin(1, 1.0, 0.0)])
    assert first == pytest.approx(_bin(12, (0.2 + 0.6 + 3.6) / 12, 4 / 12))
    assert last == pytest.approx(_bin(31, 28 / 31, 27 / 31))
    assert joined_bins([_bin(3, 0.5, 1.0)]) == [_bin(3, 0.5, 1.0)]
    assert joined_bins([]) == []


def test_classes_have_their_names() -> None:
    figure = class_plots.errors_by_class({"run": [1.0, 2.0]}, ["cat", "dog"])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["cat", "dog"]
    figure = class_plots.confusion([[1, 0], [2, 3]], names=["a class with a long name", "$x"])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a class with …", r"\$x"]


@pytest.mark.parametrize(
    ("classes", "right", "names"),
    [(3, 5, None), (10, 8, None), (10, 1135, None), (10, 1000, 10 * ["a class with a long name"]), (20, 500, None)],
)
def test_the_counts_fit_their_cells(classes: int, right: int, names: list[str] | None) -> None:
    counts = [[right if row == c else 1 for c in range(classes)] for row in range(classes)]
    figure = class_plots.confusion(counts, names=names)
    plots.as_png(figure)
    (axes,) = figure.axes
    cell = axes.get_window_extent().width / classes
    assert max(text.get_window_extent().width for text in axes.texts) < cell


def test_fifteen_runs_have_fifteen_colors_and_a_legend_below() -> None:
    bins = {f"run {number}": [_bin(20, 0.5, 0.5)] for number in range(15)}
    figure = class_plots.reliability(bins)
    lines = figure.axes[0].get_lines()[1:]
    assert len({str(line.get_color()) for line in lines}) == 15
    assert len(figure.legends) == 1


@pytest.mark.parametrize("name", ["plain", 19 * "n", 40 * "n"])
def test_a_legend_fits_its_figure(name: str) -> None:
    figure = class_plots.errors_by_class({f"{number}{name}": [1.0, 2.0] for number in range(9)})
    plots.as_png(figure)
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= legend.x0 < legend.x1 <= whole.x1
    assert whole.y0 <= legend.y0


def test_the_shares_axis_names_few_values() -> None:
    bins = {"run": [_bin(20, 0.2, 0.1), _bin(80, 0.5, 0.5), _bin(400, 0.8, 0.9), _bin(500, 0.9, 0.9)]}
    figure = class_plots.reliability(bins)
    plots.as_png(figure)  # what is named depends on how much room there is
    below = figure.axes[1]
    assert {float(tick) for tick in below.get_yticks()} <= {10.0**power for power in range(-9, 9)}
    assert [label.get_text() for label in _seen(below)] == ["0.01", "0.1", "1"]


def test_the_shares_axis_fits_its_names() -> None:
    bins = {"run": [_bin(12, 0.3, 0.3), _bin(9988, 0.9, 0.9)]}
    figure = class_plots.reliability(bins)
    plots.as_png(figure)
    below = figure.axes[1]
    assert [label.get_text() for label in _seen(below)] == ["0.001", "0.01", "0.1", "1"]
    assert below.yaxis.label.get_window_extent().height < below.get_window_extent().height
    assert class_plots.reliability({"run": []}).axes[1].get_ylim() == (0.01, 2)


def _seen(axes: Axes) -> list[Text]:
    """The texts at the vertical axis that lie within it."""
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [text for value, text in ticks if low <= value <= high]


@pytest.mark.parametrize("title", ["4 as 9", "7 as 9\n63.4 %", "cat\nas long name x\n100.0 %"])
def test_mistakes_keep_off_the_figures_edges(title: str) -> None:
    figure = plots.mistakes([[[0.5] * 28] * 28] * 24, [title] * 24, "heading")
    plots.as_png(figure)
    assert min(axes.get_window_extent().y0 for axes in figure.axes) > 0.1 * figure.dpi
