"""Pictures of what a net answers, in the style of plots: by class, and by how sure it is."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kd_lightning.reports.plots import (
    QUIET_COLOR,
    TICKED_CLASSES,
    add_legend,
    class_ticks,
    label_text,
    legend_height,
    line_colors,
    new_figure,
    plain_log_ticks,
    short_names,
)

# A bin of fewer predictions is joined with the next: its accuracy would be chance.
LEAST_IN_BIN = 10
_CALIBRATED = "perfectly calibrated"


def confusion(
    counts: Sequence[Sequence[int]],
    ylabel: str = "label",
    xlabel: str = "prediction",
    names: Sequence[str] | None = None,
) -> Figure:
    """A confusion matrix; colors show what is off the diagonal, where the diagonal would drown it.

    Args:
        counts: (classes, classes), by [row's class][column's class].
        ylabel: What the rows are.
        xlabel: What the columns are.
        names: Of the classes, their numbers by default.
    """
    classes = len(counts)
    wrong = [[0 if r == c else count for c, count in enumerate(line)] for r, line in enumerate(counts)]
    largest = max(1, *(count for line in wrong for count in line))
    side = 4 if classes <= 10 and not names else 5
    with new_figure(side, side - 0.2) as figure:
        axes = figure.subplots()
        axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=largest)
        axes.grid(visible=False)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=f"{sum(map(sum, wrong)):,} of {sum(map(sum, counts)):,} differ")
        if classes <= TICKED_CLASSES:
            class_names = names if names and len(names) == classes else None
            class_ticks(axes, classes, class_names)
            axes.set_yticks(range(classes), short_names(class_names or [str(number) for number in range(classes)]))
            size = min(9, 75 * side / classes / len(f"{max(map(max, counts))}"))  # the longest count fits into its cell
            for row, line in enumerate(counts):
                for column, count in enumerate(line):
                    if count:
                        dark = row != column and count > 0.75 * largest
                        color = "#555555" if row == column else "white" if dark else "black"
                        axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)
        return figure


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy against confidence of each run, and on which share of the predictions it rests.

    Args:
        bins: By run: count, mean confidence and accuracy of each bin, the least confident first.
    """
    with new_figure(4.4, 3.1 + legend_height([_CALIBRATED, *bins])) as figure:
        smallest = 0.01  # so that the shares' axis has three labels or more
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], "--", color=QUIET_COLOR, linewidth=1, label=_CALIBRATED)
        for (name, run), color in zip(bins.items(), line_colors(len(bins)), strict=True):
            filled = joined_bins(run)
            total = sum(each["count"] for each in run)
            confidence = [each["confidence"] for each in filled]
            accuracy = [each["accuracy"] for each in filled]
            above.plot(confidence, accuracy, "o-", markersize=3, label=label_text(name), color=color)
            shares = [each["count"] / total for each in filled]
            below.plot(confidence, shares, "o-", markersize=3, color=color)
            smallest = min([smallest, *shares])
        above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        whole_decade = 10.0 ** math.floor(math.log10(smallest))
        below.set(xlabel="confidence", ylabel="share", yscale="log", ylim=(whole_decade, 2))
        plain_log_ticks(below)
        add_legend(figure, above, "upper left")
        return figure


def joined_bins(bins: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Bins in which each has at least LEAST_IN_BIN predictions, but for a net that made fewer.

    Args:
        bins: Count, mean confidence and accuracy of each; empty ones are left out.
    """
    joined: list[dict[str, float]] = []
    for each in (dict(each) for each in bins if each["count"]):
        if joined and joined[-1]["count"] < LEAST_IN_BIN:
            joined[-1] = _together(joined[-1], each)
        else:
            joined.append(each)
    if len(joined) > 1 and joined[-1]["count"] < LEAST_IN_BIN:
        joined[-2:] = [_together(*joined[-2:])]
    return joined


def _together(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    count = one["count"] + other["count"]
    means = {
        name: (one["count"] * one[name] + other["count"] * other[name]) / count for name in ("confidence", "accuracy")
    }
    return {"count": count, **means}


def errors_by_class(errors: Mapping[str, Sequence[float]], names: Sequence[str] | None = None) -> Figure:
    """Bars side by side: the error rate of each class, in percent, by run.

    Args:
        errors: Of each class, by run.
        names: Of the classes, their numbers by default.
    """
    with new_figure(4.4, 3.1 + legend_height(errors)) as figure:
        axes = figure.subplots()
        width = 0.8 / max(1, len(errors))
        most = max(map(len, errors.values()), default=0)
        for place, ((name, rates), color) in enumerate(zip(errors.items(), line_colors(len(errors)), strict=True)):
            shift = (place - (len(errors) - 1) / 2) * width
            places = [number + shift for number in range(len(rates))]
            axes.bar(places, rates, width, label=label_text(name), color=color)
        class_names = names if names and len(names) == most else None
        class_ticks(axes, most, class_names)
        axes.set(xlabel=None if class_names else "class", ylabel="errors, %")
        axes.grid(visible=False, axis="x")
        add_legend(figure, axes)
        return figure
