"""Pictures in one style, for TensorBoard, the report and the guides: curves, examples, rows of a table.

Numbers in, figures out; class_plots has those of a net's answers.
"""

import io
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

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

NAME_LENGTH = 14  # of a class's name on an axis
TICKED_CLASSES = 20  # of which each is named on an axis, at most
LEGEND_INSIDE = 6  # lines, at most; a longer legend stands below
LEGEND_PAIRED = 20  # characters of a name, at most, in a legend of two columns

# (height, width), 0 is the background; or (height, width, 3), red, green and blue. In [0, 1].
Image = Sequence[Sequence[Any]]


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches in this project's style."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height))


def softened_targets(
    image: Image, label: int, answers: Mapping[str, Sequence[float]], names: Sequence[str] | None = None
) -> Figure:
    """An image, and next to it probabilities of each class, such as the label's and the teachers' at some temperatures.

    Args:
        image: In [0, 1].
        label: Its class.
        answers: Probabilities of each class, by title. Up to 20 classes share one scale; of more, flat answers would be
            too low to see, and each has a scale of its own.
        names: Of the classes, their numbers by default.
    """
    with new_figure(2.2 + 2.4 * len(answers), 2.4) as figure:
        first, *others = figure.subplots(1, 1 + len(answers), width_ratios=[1, *[1.5] * len(answers)])
        _show(first, image, f"label {label_text(names[label]) if names else label}")
        first.set_xlabel("its bar is orange", color=HARD_COLOR)
        for axes, (title, probabilities) in zip(others, answers.items(), strict=True):
            colors = [HARD_COLOR if place == label else SOFT_COLOR for place in range(len(probabilities))]
            axes.bar(range(len(probabilities)), probabilities, color=colors)
            axes.set(title=title, xlabel=None if names else "class")
            class_ticks(axes, len(probabilities), names)
            axes.grid(visible=False, axis="x")
            if axes is not others[0] and len(probabilities) <= TICKED_CLASSES:
                axes.sharey(others[0])
                axes.tick_params(labelleft=False)
        others[0].set_ylabel("probability")
        return figure


def mistakes(images: Sequence[Image], titles: Sequence[str], heading: str, columns: int = 8) -> Figure:
    """Images in a grid with a title of a line or more above each."""
    rows = max(1, -(-len(images) // columns))
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    longest = max((len(line) for title in titles for line in title.splitlines()), default=0)
    size = 9 if longest < NAME_LENGTH - 2 else 7
    with new_figure(1.1 * columns, (1.17 + 0.15 * lines) * rows + 0.3) as figure:
        figure.suptitle(heading, fontsize=9)
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            if place < len(images):
                _show(axes, images[place], titles[place], size)
            else:
                axes.axis("off")
        return figure


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str, *, log: bool) -> Figure:
    """Lines over training steps.

    Args:
        series: Steps and values of each line, by name; `val/x` has the color of `train/x` and is dashed.
        ylabel: What the values are.
        log: Whether their axis is logarithmic.
    """
    kinds = list(dict.fromkeys(name.rpartition("/")[2] for name in series))
    with new_figure(4.4, 3.1 + legend_height(series)) as figure:
        axes = figure.subplots()
        colors = dict(zip(kinds, line_colors(len(kinds)), strict=True))
        for name, (steps, values) in series.items():
            line = "--" if name.startswith("val/") else "-"
            marker = "." if len(steps) == 1 else None
            color = colors[name.rpartition("/")[2]]
            axes.plot(steps, values, line, marker=marker, linewidth=1.2, label=label_text(name), color=color)
        axes.set(xlabel="step", ylabel=ylabel)
        if log and all(value > 0 for _, values in series.values() for value in values):
            axes.set(yscale="log", ylabel=f"{ylabel}, log scale")
            plain_log_ticks(axes)
        add_legend(figure, axes)
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
    """Draw a box for a letter that the font lacks, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def verdict(errors: Mapping[str, Sequence[int]], saved: float, low: float | None, high: float | None) -> Figure:
    """Left: errors of each student, a line for each seed. Right: errors that the last saves against the first.

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
    temperatures: Sequence[float], label: Sequence[float], entropy: Sequence[float], dark: Sequence[float]
) -> Figure:
    """Soft targets against temperature: their confidence, entropy and dark knowledge.

    Args:
        temperatures: T, rising.
        label: Mean probability of the label.
        entropy: Mean entropy, in nats.
        dark: Dark knowledge, in nats, see teachers.knowledge.
    """
    with new_figure(9, 2.8) as figure:
        shown = (
            (label, "probability of the label", HARD_COLOR),
            (entropy, "entropy, nats", QUIET_COLOR),
            (dark, "dark knowledge, nats", SOFT_COLOR),
        )
        for axes, (values, title, color) in zip(figure.subplots(1, 3), shown, strict=True):
            axes.plot(temperatures, values, "o-", color=color, markersize=3)
            axes.set(xlabel="T", title=title, xscale="log", ylim=(0, None))
            ticks = [t for t in temperatures if t in (0.5, 1, 2, 4, 8, 20, 50)]
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        return figure


def label_text(name: str) -> str:
    """A run's name for a legend: short, not taken for a formula, and not left out for beginning with `_`."""
    short = name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…"
    return f" {short}".replace("$", r"\$") if short.startswith("_") else short.replace("$", r"\$")


def line_colors(count: int) -> list[Any]:  # Any: matplotlib's names and tuples
    """So many distinct colors."""
    if count <= 10:
        return [f"C{place}" for place in range(count)]
    return [mpl.colormaps["turbo"](place / (count - 1)) for place in range(count)]


def legend_height(names: Collection[str]) -> float:
    """Inches that a legend of these names adds to a figure."""
    return 0.0 if len(names) <= LEGEND_INSIDE else 0.16 * -(-len(names) // _legend_columns(names))


def add_legend(figure: Figure, axes: Axes, place: Literal["best", "upper left"] = "best") -> None:
    """Name the lines, in the picture or, where there are many, below it."""
    lines, names = axes.get_legend_handles_labels()
    if len(names) > LEGEND_INSIDE:
        figure.legend(lines, names, loc="outside lower center", ncols=_legend_columns(names), fontsize=8)
    elif names:
        axes.legend(loc=place, fontsize=8)


def _legend_columns(names: Iterable[str]) -> int:
    return 2 if max(map(len, names)) <= LEGEND_PAIRED else 1


def plain_log_ticks(axes: Axes) -> None:
    """Label a logarithmic axis with three to eight plain numbers: 0.1, 1, 10, or 0.1, 0.2, 0.5, or evenly spaced."""
    low, high = axes.get_ylim()
    decades, parts = LogLocator(subs=(1,), numticks=5), LogLocator(subs=(1, 2, 5), numticks=5)
    for locator in (decades, parts, MaxNLocator(4, min_n_ticks=3)):
        ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        if 3 <= len(ticks) <= 8:
            break
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def class_ticks(axes: Axes, classes: int, names: Sequence[str] | None) -> None:
    """Name the classes on the horizontal axis, where there are not too many."""
    if classes <= TICKED_CLASSES:
        texts = short_names(names) if names else [str(number) for number in range(classes)]
        axes.set_xticks(range(classes), texts)
        if names:
            axes.tick_params(axis="x", labelrotation=45)
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")


def short_names(names: Sequence[str]) -> list[str]:
    """Names of classes for an axis."""
    return [label_text(name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…") for name in names]


def _show(axes: Axes, image: Image, title: str, size: int = 9) -> None:
    axes.imshow(image, cmap="gray_r")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=size)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
