"""Pictures of a run, in one style: for TensorBoard, the report and the guides. Numbers in, figures out."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Any: matplotlib names 300 literals. Figures are made without pyplot, which would keep them all and ask for a screen.
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
SOFT_COLOR, HARD_COLOR, TEACHER_COLOR, QUIET_COLOR = "#2a6fbb", "#d1603d", "#3c9d6e", "#999999"

LABEL_LENGTH = 40  # characters of a run's name in a legend, at most

Image = Sequence[Sequence[float]]  # (height, width), 0 is the background


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches in this project's style."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height))


def softened_targets(
    image: Image, label: int, answers: Mapping[str, Sequence[float]], names: Sequence[str] | None = None
) -> Figure:
    """An image beside probabilities of each class, such as the label's and the teachers' at some temperatures.

    Args:
        image: (height, width) in [0, 1].
        label: Its class.
        answers: Probabilities of each class, by title; each has a scale of its own.
        names: Of the classes, their numbers by default.
    """
    with new_figure(2.2 + 2.4 * len(answers), 2.4) as figure:
        first, *others = figure.subplots(1, 1 + len(answers), width_ratios=[1, *[1.5] * len(answers)])
        _show(first, image, f"label {label}")
        for axes, (title, probabilities) in zip(others, answers.items(), strict=True):
            colors = [HARD_COLOR if place == label else SOFT_COLOR for place in range(len(probabilities))]
            axes.bar(range(len(probabilities)), probabilities, color=colors)
            axes.set(title=title, xlabel="class")
            _class_ticks(axes, len(probabilities), names)
            axes.grid(visible=False, axis="x")
        return figure


def mistakes(images: Sequence[Image], titles: Sequence[str], heading: str, columns: int = 8) -> Figure:
    """Images in a grid with a line above each."""
    rows = max(1, -(-len(images) // columns))
    with new_figure(1.1 * columns, 1.35 * rows + 0.3) as figure:
        figure.suptitle(heading, fontsize=9)
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            if place < len(images):
                _show(axes, images[place], titles[place])
            else:
                axes.axis("off")
        return figure


def confusion(counts: Sequence[Sequence[int]], ylabel: str = "label", xlabel: str = "prediction") -> Figure:
    """A confusion matrix; colors show what is off the diagonal, where the diagonal would drown it.

    Args:
        counts: (classes, classes), by [row's class][column's class].
        ylabel: What the rows are.
        xlabel: What the columns are.
    """
    classes = len(counts)
    wrong = [[0 if r == c else count for c, count in enumerate(line)] for r, line in enumerate(counts)]
    largest = max(1, *(count for line in wrong for count in line))
    with new_figure(4.2, 4.0) as figure:
        axes = figure.subplots()
        axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=largest)
        axes.grid(visible=False)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=f"{sum(map(sum, wrong)):,} of {sum(map(sum, counts)):,} differ")
        if classes <= 20:
            axes.set_xticks(range(classes))
            axes.set_yticks(range(classes))
            for row, line in enumerate(counts):
                for column, count in enumerate(line):
                    if count:
                        dark = row != column and count > 0.6 * largest
                        color = QUIET_COLOR if row == column else "white" if dark else "black"
                        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)
        return figure


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy against confidence of each run, and on which share of the predictions it rests.

    Args:
        bins: By run: count, mean confidence and accuracy of each bin.
    """
    with new_figure(4.2, 4.0) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], "--", color=QUIET_COLOR, linewidth=1, label="perfectly calibrated")
        for name, run in bins.items():
            filled = [each for each in run if each["count"]]
            total = sum(each["count"] for each in run)
            confidence = [each["confidence"] for each in filled]
            above.plot(confidence, [each["accuracy"] for each in filled], "o-", markersize=3, label=_label(name))
            below.plot(confidence, [each["count"] / total for each in filled], "o-", markersize=3)
        above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        below.set(xlabel="confidence", ylabel="share", yscale="log")
        above.legend(loc="upper left", fontsize=7)
        return figure


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str, *, log: bool) -> Figure:
    """Lines over training steps.

    Args:
        series: Steps and values of each line, by name; `val/x` has the color of `train/x` and is dashed.
        ylabel: What the values are.
        log: Whether their axis is logarithmic.
    """
    with new_figure(4.6, 3.0) as figure:
        axes = figure.subplots()
        colors = {name.rpartition("/")[2]: f"C{place}" for place, name in enumerate(series)}
        for name, (steps, values) in series.items():
            line = "--" if name.startswith("val/") else "-"
            axes.plot(steps, values, line, linewidth=1.2, label=_label(name), color=colors[name.rpartition("/")[2]])
        axes.set(xlabel="step", ylabel=ylabel)
        if log and all(value > 0 for _, values in series.values() for value in values):
            axes.set_yscale("log")
        if series:
            axes.legend(fontsize=7)
        return figure


def errors_by_class(errors: Mapping[str, Sequence[float]]) -> Figure:
    """Bars side by side: the error rate of each class, in percent, by run."""
    with new_figure(6.4, 2.8) as figure:
        axes = figure.subplots()
        width = 0.8 / max(1, len(errors))
        for place, (name, rates) in enumerate(errors.items()):
            shift = (place - (len(errors) - 1) / 2) * width
            axes.bar([number + shift for number in range(len(rates))], rates, width, label=_label(name))
            _class_ticks(axes, len(rates), None)
        axes.set(xlabel="class", ylabel="errors, %")
        axes.grid(visible=False, axis="x")
        if errors:
            axes.legend(fontsize=7)
        return figure


def errors_by_row(rows: Sequence[tuple[str, float, float, float | None]], xlabel: str) -> Figure:
    """A point with its spread for each row, and a cross where others have a figure.

    Args:
        rows: Name, mean, standard deviation (0 where there is one run), and the other figure, the first on top.
        xlabel: What is counted.
    """
    with new_figure(8, 0.36 * len(rows) + 0.9) as figure:
        axes = figure.subplots()
        for place, (_, mean, spread, other) in enumerate(reversed(rows)):
            axes.errorbar(mean, place, xerr=spread, fmt="o", color=SOFT_COLOR, capsize=3)
            if other is not None:
                axes.plot(other, place, "x", color=HARD_COLOR)
        axes.plot([], [], "o", color=SOFT_COLOR, label="here, mean and standard deviation")
        if any(other is not None for *_, other in rows):
            axes.plot([], [], "x", color=HARD_COLOR, label="paper")
        axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
        axes.set(xlabel=xlabel, xlim=(0, None))
        figure.legend(loc="outside upper right", ncols=2)
        return figure


def as_png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    with _any_glyph():
        figure.savefig(content, format="png")
    return content.getvalue()


def as_svg(figure: Figure) -> str:
    """The figure as SVG text that can stand in HTML."""
    content = io.StringIO()
    with _any_glyph(), mpl.rc_context({"svg.hashsalt": "kd_lightning"}):  # the same figure gives the same text
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()[content.getvalue().index("<svg") :]


@contextmanager
def _any_glyph() -> Iterator[None]:
    """Draw a box where the font lacks a letter of a run's name, and say nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _label(name: str) -> str:
    """A run's name for a legend: short, not taken for a formula, and not left out for beginning with `_`."""
    short = name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…"
    return f" {short}".replace("$", r"\$") if short.startswith("_") else short.replace("$", r"\$")


def _show(axes: Axes, image: Image, title: str) -> None:
    axes.imshow(image, cmap="gray_r")
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(visible=False)


def _class_ticks(axes: Axes, classes: int, names: Sequence[str] | None) -> None:
    if classes <= 20:
        axes.set_xticks(range(classes), names or [str(number) for number in range(classes)])


def verdict(errors: Mapping[str, Sequence[int]], saved: float, low: float | None, high: float | None) -> Figure:
    """Errors of each student, a line for each seed, beside the errors that the last saves against the first.

    Args:
        errors: Errors by seed, by student.
        saved: Errors saved, the mean over seeds.
        low: Lower end of its confidence interval, None where there is none.
        high: Upper end.
    """
    with new_figure(7.5, 3.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[3, 1])
        places = range(len(errors))
        for seed in zip(*errors.values(), strict=False):
            left.plot(places, seed, color=QUIET_COLOR, linewidth=0.8, marker="o", markersize=4)
        means = [sum(counts) / len(counts) for counts in errors.values()]
        left.plot(places, means, color=SOFT_COLOR, linewidth=0, marker="_", markersize=28, markeredgewidth=2.5)
        left.set_xticks(places, [name.replace(", ", ",\n") for name in errors])
        left.margins(x=0.2)
        left.set(ylabel="test errors", title="a grey line for each seed, blue: mean")
        around = None if low is None or high is None else [[saved - low], [high - saved]]
        right.errorbar([0], [saved], yerr=around, color=SOFT_COLOR, marker="o", capsize=5, linewidth=1.5)
        right.axhline(0, color=HARD_COLOR, linewidth=1)
        right.set(title="saved against plain", ylabel="errors, 95 % interval", xticks=[])
        return figure


def knowledge(
    temperatures: Sequence[float], label: Sequence[float], entropy: Sequence[float], beside: Sequence[float]
) -> Figure:
    """Soft targets against temperature: how sure they are, and what they say beside the label.

    Args:
        temperatures: T, rising.
        label: Mean probability of the label.
        entropy: Mean entropy, in nats.
        beside: What is said beside the label, in nats, see teachers.knowledge.
    """
    with new_figure(9, 2.8) as figure:
        shown = (
            (label, "probability of the label", HARD_COLOR),
            (entropy, "entropy, nats", QUIET_COLOR),
            (beside, "said beside the label, nats", SOFT_COLOR),
        )
        for axes, (values, title, color) in zip(figure.subplots(1, 3), shown, strict=True):
            axes.plot(temperatures, values, "o-", color=color, markersize=3)
            axes.set(xlabel="T", title=title, xscale="log", ylim=(0, None))
            ticks = [t for t in temperatures if t in (0.5, 1, 2, 4, 8, 20, 50)]
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        return figure
