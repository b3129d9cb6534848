"""What the report's page shows in pictures: curves, calibration, errors by class, confusions."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from kd_lightning.reports import class_plots, plots
from kd_lightning.reports.comparison import Group
from kd_lightning.reports.curves import Curves, accuracy_of, charts_of, read_curves
from kd_lightning.reports.run_folders import Run
from kd_lightning.runs.files import PICTURE_TAGS

# Pictures of a run's event files that the page draws itself, from all test examples.
_DRAWN_HERE = "confusion"


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        name: Of its PNG file.
        caption: What it shows, for people.
        content: A figure to draw, or a PNG's bytes.
    """

    name: str
    caption: str
    content: Figure | bytes


class Section(NamedTuple):
    """Pictures under a heading; `wide` ones need half of a page each."""

    heading: str
    pictures: list[Picture]
    wide: bool = False


class _Shown(NamedTuple):
    """The run that stands for its group in the pictures: its first tested one.

    Attributes:
        name: What the group is called.
        run: The run.
        curves: What it logged.
    """

    name: str
    run: Run
    curves: Curves

    @property
    def who(self) -> str:
        """Its name and its seed."""
        return self.name if self.run.seed is None else f"{self.name}, seed {self.run.seed}"

    @property
    def unit(self) -> str:
        """What its examples are, in the plural."""
        return str(self.run.metrics.get("unit", "images"))

    @property
    def tables(self) -> dict[str, Any]:
        tables: dict[str, Any] = self.run.details.get("tables", {})
        return tables


def sections(groups: Sequence[Group], names: Sequence[str]) -> list[Section]:
    """Headings and pictures of the page; those without a picture are left out.

    Args:
        groups: Runs that differ only by their seed.
        names: What each group is called.
    """
    runs = [next((run for run in members if run.metrics), members[0]) for members in groups]
    shown = [_Shown(name, run, read_curves(run.folder)) for name, run in zip(names, runs, strict=True)]
    unit = " and ".join(dict.fromkeys(each.unit for each in shown))
    found = [
        Section("Loss curves", list(_curves(shown))),
        Section("Accuracy, reliability, errors by class", list(_side_by_side(shown, unit))),
        Section("Confusion", list(_confusions(shown))),
        Section("Pictures", list(_pictures(shown)), wide=True),
    ]
    return [section for section in found if section.pictures]


def _curves(shown: Sequence[_Shown]) -> Iterator[Picture]:
    for each in shown:
        for number, chart in enumerate(charts_of(each.curves.scalars)):
            name = f"{each.name}-loss" if number == 0 else f"{each.name}-{chart.title}"
            unit = "nats (soft: T² · nats)" if any("soft_loss" in tag for tag in chart.curves) else "nats"
            ylabel = unit if chart.log else chart.title
            yield Picture(name, f"{each.who}: {chart.title}", plots.curves(chart.curves, ylabel, log=chart.log))


def _side_by_side(shown: Sequence[_Shown], unit: str) -> Iterator[Picture]:
    """One picture each of all groups."""
    seeds = sorted({each.run.seed for each in shown if each.run.seed is not None})
    which = f", seed {seeds[0]}" if len(seeds) == 1 else ""
    # The caption names a seed that all have; else each line's name does.
    named = [(each.who if len(seeds) > 1 else each.name, each) for each in shown]
    accuracy = {name: curve for name, each in named if (curve := accuracy_of(each.curves.scalars)) is not None}
    bins = {name: each.tables["reliability"] for name, each in named if each.tables.get("reliability")}
    rates = {name: _class_errors(each.tables["confusion"]) for name, each in named if "confusion" in each.tables}
    if accuracy:
        yield Picture("accuracy", f"accuracy, validation {unit}{which}", plots.curves(accuracy, "accuracy", log=False))
    if bins:
        yield Picture("reliability", f"how right and how sure, test {unit}{which}", class_plots.reliability(bins))
    if rates:
        names = next((each.run.class_names for each in shown if each.run.class_names), None)
        yield Picture(
            "errors-by-class", f"errors by class, test {unit}{which}", class_plots.errors_by_class(rates, names)
        )


def _confusions(shown: Sequence[_Shown]) -> Iterator[Picture]:
    for each in shown:
        for kind, what, ylabel in (
            ("confusion", f"test {each.unit}", "label"),
            ("teacher_confusion", f"student against its teachers, test {each.unit}", "teachers' prediction"),
            ("sequence_confusion", "whole sequences", "label"),
        ):
            if kind in each.tables:
                names = None if kind == "sequence_confusion" else each.run.class_names
                drawn = class_plots.confusion(each.tables[kind], ylabel=ylabel, names=names)
                yield Picture(f"{each.name}-{kind.replace('_', '-')}", f"{each.who}, {what}", drawn)


def _pictures(shown: Sequence[_Shown]) -> Iterator[Picture]:
    for tag in sorted({tag for each in shown for tag in each.curves.images}):
        what = tag.removeprefix(PICTURE_TAGS)
        for each in shown if what != _DRAWN_HERE else ():
            if tag in each.curves.images:
                caption = f"{each.who}: {what}, validation {each.unit}"
                yield Picture(f"{each.name}-{what.replace(' ', '-')}", caption, each.curves.images[tag])


def _class_errors(confusion: Sequence[Sequence[int]]) -> list[float]:
    """Error rate of each class in percent, from counts by [label][prediction]."""
    return [100 * (sum(line) - line[label]) / sum(line) if sum(line) else 0.0 for label, line in enumerate(confusion)]
